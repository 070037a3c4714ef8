"""Files that appear whole or not at all."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from landscape import writing
from landscape.writing import WriteError, replacing, write_text


def test_a_file_is_replaced_whole(tmp_path):
    target = tmp_path / "a.txt"
    assert write_text(target, "old") == target
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_inside_leaves_the_old_file_and_no_other(tmp_path):
    target = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), replacing(target) as temporary:
        temporary.write_text("half")
        raise KeyError("x")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["write_text", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on device; make room on the disk"),
        (errno.EROFS, "read-only file system; choose a folder that can be written"),
        (errno.EACCES, "permission denied; choose a folder that you may write to"),
    ],
)
def test_what_the_disk_refuses_is_one_line(tmp_path, monkeypatch, step, number, words):
    target = write_text(tmp_path / "a.txt", "old")

    def refuse(self, *_args, **_options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, refuse)
        with pytest.raises(WriteError) as caught:
            write_text(target, "new")
    assert str(caught.value) == f"cannot write {target}: {words}"
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_contents_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(handle):
        linked = Path(f"/proc/self/fd/{handle}")
        seen.append(linked.readlink() if sys.platform == "linux" else "?")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    target = write_text(tmp_path / "a.txt", "x")
    if sys.platform == "linux":
        assert [name.name.startswith(".a.txt.") for name in seen] == [True, False]
        assert seen[1] == target.parent
    assert len(seen) == 2


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    names = {
        f".a.txt.{host}-{gone.pid}.tmp": False,
        f".a.txt.{host}-{os.getppid()}.tmp": True,  # of a process that is there
        f".a.txt.elsewhere-{gone.pid}.tmp": True,  # of another machine
        f".b.txt.{host}-{gone.pid}.tmp": True,  # of another file
        f".a.txt.{host}-mine.tmp": True,
    }
    for name in names:
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "a.txt", "x")
    assert {name for name, stays in names.items() if stays} == {
        p.name for p in tmp_path.iterdir()
    } - {"a.txt"}


def test_names_with_wildcards_are_only_names(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    other, own = (tmp_path / f".{n}.{host}-{gone.pid}.tmp" for n in ("a1.txt", "a[1].txt"))
    other.write_text("half")
    own.write_text("half")
    write_text(tmp_path / "a[1].txt", "x")
    assert other.exists()
    assert not own.exists()


def test_processes_that_are_there():
    assert writing.alive(os.getpid())
    assert writing.alive(1)
    assert not writing.alive(2**22 + 1)  # above the greatest that Linux gives
