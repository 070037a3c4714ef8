"""One process at a time writes an output."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from landscape.holding import HeldError, Hold, held

HOLDER = """
import sys, time
from landscape.holding import Hold
hold = Hold(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a file."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_is_told_who_holds_it(tmp_path, holder):
    target = tmp_path / "s.nc"
    process = holder(target)
    with pytest.raises(HeldError) as caught, held(target):
        raise AssertionError("held twice")
    words = str(caught.value)
    assert words.startswith(
        f"{target} is being written by process {process.pid} on {socket.gethostname()} since "
    )
    assert words.endswith(": wait for it, stop it, or choose another name")
    assert "\n" not in words
    with held(tmp_path / "other.nc"):  # only this file
        pass


def test_it_ends_with_a_process_that_is_killed(tmp_path, holder):
    target = tmp_path / "s.nc"
    process = holder(target)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with held(target):
        pass


def test_the_same_process_cannot_hold_it_twice(tmp_path):
    target = tmp_path / "s.nc"
    with held(target):
        with pytest.raises(HeldError, match=f"process {os.getpid()} on"), held(target):
            raise AssertionError("held twice")
        with pytest.raises(HeldError, match="being written"), held(tmp_path / "." / "s.nc"):
            raise AssertionError("held under another name")
    with held(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_links_to_one_file_share_a_lock(tmp_path):
    (tmp_path / "s.nc").write_text("x")
    (tmp_path / "link.nc").symlink_to(tmp_path / "s.nc")
    with held(tmp_path / "s.nc"), pytest.raises(HeldError), held(tmp_path / "link.nc"):
        raise AssertionError("held twice")


def test_a_removed_lock_is_taken_again(tmp_path, holder):
    target = tmp_path / "s.nc"
    hold = Hold(target)
    (tmp_path / ".s.nc.lock").unlink()
    hold.confirm()
    with pytest.raises(HeldError):
        Hold(target)
    (tmp_path / ".s.nc.lock").unlink()
    process = holder(target)
    with pytest.raises(HeldError, match=f"process {process.pid}"):
        hold.confirm()
    hold.release()
    assert (tmp_path / ".s.nc.lock").exists()  # it is the other's


def test_nothing_to_hold():
    with held(None) as hold:
        assert hold is None


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="cannot write .*s.nc: no such file or directory"):
        Hold(tmp_path / "none" / "s.nc")
