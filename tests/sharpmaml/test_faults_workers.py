"""Jobs in processes of their own: asked to end they save their work, and none is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


def gone(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


SCENES = {
    "terminated": (signal.SIGTERM, False, 143, "error: ended by SIGTERM"),
    "Ctrl-C twice": (signal.SIGINT, True, 130, "error: interrupted"),
    "killed": (signal.SIGKILL, False, -9, ""),
    "a worker killed": (None, False, 1, "error: a process was killed, or its memory ran out"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """All scenes side by side: what takes the time is that every process imports torch."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    running = {}
    for name in SCENES:
        place = tmp_path_factory.mktemp("jobs")
        running[name] = place, subprocess.Popen(
            [sys.executable, str(TESTS / "worker_jobs.py"), str(place)], env=environment,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
    found = {}
    for name, (place, process) in running.items():
        number, twice, *_ = SCENES[name]
        assert until(lambda: len(list(place.glob("*.pid"))) == 2)  # noqa: B023
        time.sleep(0.2)
        pids = [int(file.read_text()) for file in sorted(place.glob("*.pid"))]
        if number is None:
            os.kill(pids[0], signal.SIGKILL)
        elif twice:
            for _ in range(2):
                os.killpg(process.pid, number)  # a terminal sends it to all
                time.sleep(0.05)
        else:
            process.send_signal(number)
    for name, (place, process) in running.items():
        pids = [int(file.read_text()) for file in sorted(place.glob("*.pid"))]
        process.wait(90)
        left = not until(lambda: all(map(gone, pids)))  # noqa: B023
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stderr = process.stderr.read()
        process.stderr.close()
        found[name] = (
            process.returncode,
            stderr,
            sorted(p.stem for p in place.glob("*.saved")),
            left,
        )
    return found


@pytest.mark.parametrize("name", SCENES)
def test_jobs_save_their_work_and_leave_nobody_behind(ended, name):
    _, _, status, says = SCENES[name]
    returned, stderr, saved, left = ended[name]
    assert returned == status, stderr
    if says:
        assert stderr.startswith(says) and len(stderr.splitlines()) == 1, stderr
    assert saved == (["1"] if name == "a worker killed" else ["0", "1"])  # the third never began
    assert not left
