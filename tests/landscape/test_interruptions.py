"""Requests to end a process reach it where exceptions can be lost: imports, destructors, its start and its end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from landscape.interruptions import Terminated, ignored, raised

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def plain_handlers():
    """As in a process of its own, whatever the one of the tests does."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def wait(seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("number", NUMBERS[:2])
def test_it_is_raised_and_the_handlers_come_back(number):
    before = [signal.getsignal(each) for each in NUMBERS]
    with pytest.raises(KeyboardInterrupt) as stop, raised():
        ask(number)
    assert getattr(stop.value, "number", signal.SIGINT) == number
    assert isinstance(stop.value, Terminated) == (number != signal.SIGINT)
    assert [signal.getsignal(each) for each in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS[:2])
def test_an_import_is_not_broken_off(number, tmp_path, monkeypatch):
    (tmp_path / "asks_as_it_is_imported.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.2)\nWHOLE = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt) as stop, raised():
        import asks_as_it_is_imported

        wait()
    assert asks_as_it_is_imported.WHOLE
    assert getattr(stop.value, "number", signal.SIGINT) == number
    del sys.modules["asks_as_it_is_imported"]


@pytest.mark.parametrize("number", NUMBERS[:2])
def test_one_that_a_destructor_lost_is_made_again(number):
    class Asks:
        def __del__(self):
            ask(number)

    with pytest.raises(KeyboardInterrupt) as stop, raised():
        Asks()
        wait()
    assert getattr(stop.value, "number", signal.SIGINT) == number


@pytest.mark.filterwarnings("error")
def test_what_is_left_half_made_says_nothing(capsys):
    class HalfMade:
        def __del__(self):
            raise AttributeError("of an object that was never whole")

    def work():
        made = HalfMade()
        ask(signal.SIGTERM)
        return made

    with raised():
        try:
            work()
        except Terminated as stop:
            del stop  # and its frames
    assert capsys.readouterr().err == ""


def test_other_errors_of_destructors_are_told():
    class Broken:
        def __del__(self):
            raise AttributeError("broken")

    told = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda error: told.append(str(error.exc_value))
    try:
        with raised():
            Broken()
    finally:
        sys.unraisablehook = hook
    assert told == ["broken"]


def test_a_second_one_waits_for_the_answer_to_the_first():
    with raised(), ignored():
        ask(signal.SIGINT)
        ask(signal.SIGTERM)


def test_ignored_signals_stay_so_and_threads_set_none():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with raised():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        ask(signal.SIGHUP)
    failed = []

    def work():
        try:
            with raised(), ignored():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


WHOLE = """
import os, signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)
from landscape.interruptions import whole_process

class Asking(types.ModuleType):
    @property
    def main(self):
        {before}
        return work

def work(arguments):
    print("worked", flush=True)

class Ends:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

keep = Ends()
sys.modules["asking"] = Asking("asking")
whole_process("asking")
"""


@pytest.mark.parametrize(
    "before, status, out, err",
    [
        ("pass", 0, "worked\n", ""),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "", "error: interrupted before anything was done\n"),
    ],
)  # fmt: skip
def test_before_and_after_a_whole_process(before, status, out, err):
    words = textwrap.dedent(WHOLE.format(before=before))
    if status:
        words = words.replace("keep = Ends()", "")
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)
