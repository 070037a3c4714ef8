"""Fetch the two official Omniglot archives, checked before they are believed."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from landscape.writing import replacing
from sharpmaml.data.episodes import DataError

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A file to fetch: its name, its address, and the sha256 of its bytes."""

    name: str
    address: str
    sha256: str


_REPOSITORY = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
OMNIGLOT = (
    Archive(
        "images_background.zip",
        f"{_REPOSITORY}/images_background.zip",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    Archive(
        "images_evaluation.zip",
        f"{_REPOSITORY}/images_evaluation.zip",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(archives: tuple[Archive, ...], folder: Path) -> None:
    """Bring `archives` into `folder`; those that are there with the right checksum stay.

    A file gets its name only after its checksum was right, so an interrupted or altered download
    leaves nothing behind that could be taken for data.

    Raises:
        DataError: if the folder cannot be written, the address not read, or the checksum differs.
    """
    for archive in archives:
        target = folder / archive.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (target.is_file() and sha256_of(target) == archive.sha256):
                _fetch(archive, target)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{archive.name} could not be fetched from {archive.address} into {folder} "
                f"({_one_line(error)}): fetch it by hand and pass --data-root DIR"
            ) from error


def _fetch(archive: Archive, target: Path) -> None:
    content = bytearray()  # ten megabytes
    with urllib.request.urlopen(archive.address, timeout=TIMEOUT) as answer:
        while chunk := answer.read(CHUNK):
            content += chunk
    found = hashlib.sha256(content).hexdigest()
    if found != archive.sha256:
        raise DataError(
            f"{archive.address} has sha256 {found}, expected {archive.sha256}: nothing was kept; "
            f"try again, or fetch {archive.name} by hand and pass --data-root DIR"
        )
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
