"""``--data`` -> evaluation data: files, folders and built-in sets as one pair of tensors."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape import cifar10, image_folder
from landscape.batches import Data
from landscape.calls import Call, parse
from landscape.checkpoint import SUFFIXES, read_weights
from landscape.directions import generator
from landscape.networks import called
from landscape.npz import Npz
from landscape.pixels import scaled, standardized
from landscape.wording import listed, one_line

EXAMPLES = 1024
"""How many examples are taken unless ``--examples`` says otherwise."""

SETS = ("strokes", "glyphs", "omniglot")
# The package that draws them is another one of ours, named here and never by the user.
_DRAWINGS = "sharpmaml.data.classification:classification_set"

_FORMS = (
    "an .npz, .pt or .safetensors file with x and y, a folder with one subfolder of pictures a class, "
    f"cifar10, {', '.join(SETS)}, or package.module:factory or file.py:factory of (x, y) batches"
)
_SPLITS = ("train", "val", "test")
_PAIRS = (("x", "y"), ("images", "labels"), ("data", "targets"), ("input_ids", "labels"))
_TOKENS = ("tokens", "input_ids")
_SEED = "examples/0"

Array = NDArray[Any]


@dataclass(frozen=True)
class Reading:
    """What the flags say about the data; ``None`` is for flags that were not given.

    Attributes:
        split: train, val or test, of data that have them; train when left out.
        examples: how many, 0 for all; 1024 when left out.
        standardize: a name in :data:`landscape.pixels.PRESETS`, or means and standard deviations.
        image_size: pictures of a folder are resized and cut to this many pixels a side.
        root: where the files of a built-in set are.
    """

    split: str | None = None
    examples: int | None = None
    standardize: str | None = None
    image_size: int | None = None
    root: Path | None = None


@dataclass(frozen=True)
class _Table:
    """All examples of a source, before any is chosen: labels, and the inputs of some of them."""

    y: Array
    inputs: Callable[[NDArray[np.int64]], Array]
    images: bool
    settings: dict[str, Any]


def read(name: str, reading: Reading) -> tuple[Data, dict[str, Any]]:
    """The data of ``--data``, and what to record about them.

    Of files and sets a fixed subset is taken: the first ``examples`` of one permutation that depends on
    their number alone. So checkpoints are compared on the same examples, and a smaller subset is part of
    a larger one. Images stored as uint8 become float32 in [0, 1], channels first; see
    :func:`landscape.pixels.scaled`. What a factory returns is used as it is.

    Raises:
        ValueError: nothing of that name, files that are missing or damaged, or flags that do not apply.
    """
    table = _table(name, reading)
    if table is None:
        _none_given(
            reading, "a factory makes its data as it wants: give it arguments instead",
            "split", "examples", "standardize", "image_size",
        )  # fmt: skip
        return called(name, "--data"), {}
    count = EXAMPLES if reading.examples is None else reading.examples
    if count < 0:
        raise ValueError(f"--examples is {count}: expected a number of examples, or 0 for all")
    order = generator(_SEED, len(table.y)).permutation(len(table.y))
    chosen = order[: count or None]
    x, notes = scaled(table.inputs(chosen), table.images or reading.standardize is not None)
    if reading.standardize is not None:
        x, numbers = standardized(x, reading.standardize)
        notes |= {"standardize": numbers}
    notes = {**table.settings, **notes, "population": len(table.y), "order": _SEED}
    return (x, _labels(table.y[chosen])), notes


def _table(name: str, reading: Reading) -> _Table | None:
    """What is behind a name, or ``None`` for a factory."""
    path = Path(name)
    made: _Table | None
    if name == "cifar10":
        made = _cifar10(reading)
    elif path.is_dir():
        return _folder(path, reading)
    elif path.suffix in (".npz", *SUFFIXES):
        made = _arrays(path, reading)
    elif (call := parse(name, "--data")).name in SETS:
        made = _drawings(call, reading)
    elif ":" in name:
        return None
    else:
        raise ValueError(f"--data is {name!r}, and there is no such folder: expected {_FORMS}")
    _none_given(reading, "it is for folders of pictures", "image_size")
    return made


def _folder(path: Path, reading: Reading) -> _Table:
    size = reading.image_size
    if size is not None and size < 1:
        raise ValueError(f"--image-size is {size}: expected a number of pixels")
    parts = [name for name in _SPLITS if (path / name).is_dir()]
    split = (reading.split or "train") if parts else None
    if parts and split not in parts:
        raise ValueError(f"--data {path} has no split {split!r}: add --split {' or '.join(parts)}")
    if not parts:
        _none_given(reading, f"--data {path} has no folders train, val or test", "split")
    found, classes = image_folder.listed(path / split if split else path)
    files = [file for file, _ in found]
    settings = {
        "data_classes": len(classes),
        "image_size": size,
        **({"split": split} if split else {}),
    }
    return _Table(
        np.array([number for _, number in found], dtype=np.int64),
        lambda chosen: image_folder.pixels([files[i] for i in chosen], size),
        True,
        settings,
    )


def _cifar10(reading: Reading) -> _Table:
    if reading.root is None:
        raise ValueError("--data cifar10 needs --data-root: the folder or .npz file that holds it")
    if reading.standardize is None:
        raise ValueError(
            "--data cifar10 needs --standardize, what the network was trained with: cifar10, imagenet, "
            "li2018, six numbers, or none"
        )
    split = reading.split or "train"
    x, y = cifar10.read(reading.root, split)
    return _Table(y, lambda chosen: x[chosen], True, {"split": split})


def _drawings(call: Call, reading: Reading) -> _Table:
    split = reading.split or "train"
    try:
        make = pkgutil.resolve_name(_DRAWINGS)
    except ImportError:
        raise ValueError(
            f"--data {call.name} needs the package sharpmaml, which is not here"
        ) from None
    if call.args:
        raise ValueError(
            f"--data {call.name} takes named options only, such as {call.name}(seed=0)"
        )
    x, y, record = make(call.name, split, reading.root, **call.kwargs)
    settings = {**{f"data_{key}": value for key, value in record.items()}, "split": split}
    return _Table(y, lambda chosen: x[chosen], True, settings)


def _arrays(path: Path, reading: Reading) -> _Table:
    packed = path.suffix == ".npz"
    stored = _Packed(path) if packed else _tensors(path)
    names, split = _pair(path, list(stored), reading)
    x, y = (stored[name] for name in names)
    if x.shape[:1] != y.shape[:1] or not x.ndim:
        raise ValueError(
            f"--data {path} has {names[0]} of shape {tuple(x.shape)} and {names[1]} of shape "
            f"{tuple(y.shape)}: expected as many labels as examples"
        )
    if not len(x):
        raise ValueError(f"--data {path} holds no example")
    settings = {} if split is None else {"split": split}
    return _Table(y, lambda chosen: x[chosen], "images" in names[0], settings)


def _pair(path: Path, there: list[str], reading: Reading) -> tuple[tuple[str, str], str | None]:
    """The names of inputs and labels, and the split they are of, if the file has splits."""
    if "attention_mask" in there:
        raise ValueError(
            f"--data {path} has an attention_mask, which a pair of arrays cannot carry: "
            "write a factory of mappings, --data file.py:factory"
        )
    for x, y in _PAIRS:
        if x in there and y in there:
            _none_given(reading, f"--data {path} has arrays {x} and {y} without splits", "split")
            return (x, y), None
    for tokens in _TOKENS:
        if tokens in there:
            _none_given(reading, f"--data {path} has {tokens} without splits", "split")
            return (tokens, tokens), None
    parts = {
        split: (a, b)
        for split in _SPLITS
        for x, y in _PAIRS
        for a, b in ((f"{split}_{x}", f"{split}_{y}"), (f"{x}_{split}", f"{y}_{split}"))
        if a in there and b in there
    }
    if parts:
        split = reading.split or "train"
        if split not in parts:
            raise ValueError(
                f"--data {path} has no split {split!r}: add --split {' or '.join(parts)}"
            )
        return parts[split], split
    raise ValueError(
        f"--data {path} is not {_kind(path)} with arrays x and y (or images and labels, or tokens): it "
        f"holds {listed(there) or 'nothing'}"
    )


class _Packed(Mapping[str, Array]):
    """The arrays of an ``.npz`` file, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = self._read(lambda arrays: list(arrays.names))

    def __getitem__(self, name: str) -> Array:
        found: Array = self._read(lambda arrays: arrays.array(name))
        if found.dtype.kind == "c":
            raise self._refused(f"{name} holds {found.dtype}, expected numbers")
        return found

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _read(self, ask: Callable[[Npz], Any]) -> Any:
        try:
            with Npz(self._path) as arrays:
                return ask(arrays)
        except (OSError, ValueError) as error:
            raise self._refused(one_line(error)) from None

    def _refused(self, reason: str) -> ValueError:
        return ValueError(f"--data {self._path} is not an .npz file with arrays x and y: {reason}")


def _tensors(path: Path) -> dict[str, Array]:
    try:
        weights = read_weights(path)
    except ValueError as error:
        raise ValueError(
            f"--data {path} holds no tensors x and y that can be read: {error}"
        ) from None
    tensors = {weights.prefix + name: tensor for name, tensor in weights.tensors.items()}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:
            tensors[name] = tensor.float()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _kind(path: Path) -> str:
    return f"an {path.suffix} file" if path.suffix == ".npz" else f"a {path.suffix} file"


def _labels(y: Array) -> Tensor:
    labels = torch.from_numpy(np.array(y))
    return labels if labels.is_floating_point() else labels.long()  # torch's losses take no smaller


def _none_given(reading: Reading, reason: str, *flags: str) -> None:
    """ValueError when a flag was given that says nothing here."""
    for flag in flags:
        if getattr(reading, flag) is not None:
            raise ValueError(f"--{flag.replace('_', '-')} does not apply: {reason}")
