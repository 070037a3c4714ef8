import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from cyclopts import App

from landscape import console


def status_of(function, arguments=(), **options):
    app = App(name="tool")
    app.command(function, name="go")
    return console.run(app, ["go", *arguments], **options)


def raising(error):
    def go():
        raise error

    return go


def one_line(capsys):
    """What was written on standard error: one line, and nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_done(capsys):
    assert status_of(lambda: print("fine")) == 0
    assert capsys.readouterr() == ("fine\n", "")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("rate is -1:\n  expected more"), 1, "rate is -1: expected more"),
        (console.Untrusted("not converged"), 1, "not converged"),
        (FileNotFoundError(2, "No such file", "a.pt"), 1, "No such file: 'a.pt'"),
        (ValueError(), 1, "ValueError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("out of memory\nof all kinds"), 1, "RuntimeError: out of memory of all"),
        (KeyError("x"), 1, "KeyError: 'x' (test_console.py, line "),
    ],
)
def test_errors_are_one_line_and_a_status(capsys, error, status, text):
    assert status_of(raising(error)) == status
    assert text in one_line(capsys)


@pytest.mark.parametrize("words", [["--nope", "1"], ["--count", "many"], ["extra"]])
def test_usage_errors(capsys, words):
    def go(*, count: int = 1):
        raise AssertionError

    assert status_of(go, words) == 2
    one_line(capsys)


def test_a_command_that_ends_the_process_keeps_its_status(capsys):
    assert status_of(raising(SystemExit(143))) == 143
    assert status_of(raising(SystemExit("stop"))) == 1
    assert status_of(lambda: None, prepare=raising(ValueError("bad file"))) == 1
    assert "bad file" in one_line(capsys)


def test_a_reader_that_leaves_early_is_no_error():
    code = "from cyclopts import App\nfrom landscape import console\nimport sys\napp = App()\n"
    code += "@app.default\ndef go():\n    print('x' * 100000)\nsys.exit(console.run(app, []))\n"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_json_of_everything(capsys):
    value = {
        "tensor": torch.tensor([[1.0, float("nan")]], requires_grad=True),
        "scalar": torch.tensor(3),
        "half": torch.ones(1, dtype=torch.bfloat16),
        "array": np.array([1, 2], dtype=np.int8),
        "number": np.float64("inf"),
        "truth": np.bool_(True),
        "nan": float("nan"),
        "none": None,
        3: (1, [2.5, -float("inf")]),
        "path": os.path,
        "λ": "ü",
    }
    console.print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == {
        "tensor": [[1.0, None]],
        "scalar": 3,
        "half": [1.0],
        "array": [1, 2],
        "number": None,
        "truth": True,
        "nan": None,
        "none": None,
        "3": [1, [2.5, None]],
        "path": str(os.path),
        "λ": "ü",
    }
    assert "NaN" not in out
    assert "Infinity" not in out


def test_progress_off_a_terminal_is_a_line_a_quarter_on_standard_error(capsys):
    with console.progress_bar("surface") as advance:
        for done in range(1, 9):
            advance(done, 8, "loss 1" if done == 8 else "")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[-1 if "," not in line else 1].rstrip(",") for line in lines] == [
        "1/8", "2/8", "4/8", "6/8", "8/8",
    ]  # fmt: skip
    assert lines[0] == "surface: 1/8"
    assert lines[-1] == "surface: loss 1 8/8"
    assert "/s, " in lines[1]
    assert lines[1].endswith(" s left")


def test_lines_come_twice_a_minute_too_and_stages_begin_again(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress_board() as board:
        board("run", 1, 1000)
        now[0] += 29
        board("run", 2, 1000)
        now[0] += 2
        board("run", 3, 1000)
        board("other", 1, 1000)
        board("run", 1, 7, "sharpness")
    assert capsys.readouterr().err.splitlines() == [
        "run: 1/1000",
        "run: 3/1000, 0.1/s, 15454 s left",
        "other: 1/1000",
        "run: sharpness 1/7",
    ]


def test_quiet_says_nothing(capsys):
    with console.progress_bar("surface", quiet=True) as advance:
        advance(1, 1)
    with console.progress_board(quiet=True) as board:
        board("a", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_bar("surface") as advance:
        advance(1, 4, "first")
        advance(4, 4, "first")
        advance(2, 7, "second stage")
    out, err = capsys.readouterr()
    assert out == ""
    assert "surface" in err
    assert "second stage" in err
    assert "2/7" in err


@pytest.mark.parametrize(
    ("number", "status", "begins"),
    [
        (signal.SIGINT, 130, "error: interrupted; files written so far are kept"),
        (signal.SIGTERM, 143, "error: ended by SIGTERM; files written so far are kept"),
        (signal.SIGHUP, 129, "error: ended by SIGHUP; files written so far are kept"),
    ],
)
def test_signals_end_with_their_status_and_let_work_be_kept(capsys, number, status, begins):
    """Also where the suite itself runs under ``nohup``, which has SIGHUP ignored."""
    kept = []
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    given = signal.signal(number, usual)

    def go():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            kept.append(True)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        assert status_of(go) == status
    finally:
        after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        signal.signal(number, given)
    assert kept == [True]
    assert one_line(capsys).startswith(begins)
    assert after == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert status_of(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interruption_while_the_first_is_answered_is_ignored(capsys, monkeypatch):
    fail = console._fail

    def interrupted(error, status):
        os.kill(os.getpid(), signal.SIGINT)
        return fail(error, status)

    monkeypatch.setattr(console, "_fail", interrupted)
    assert status_of(raising(KeyboardInterrupt())) == 130
    assert one_line(capsys).startswith("error: interrupted")
