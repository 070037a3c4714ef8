"""Jobs side by side, a process and a thread each, that save their work when asked to end and leave nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

import torch

from landscape.console import Advance, Board

J = TypeVar("J")
R = TypeVar("R")

_BETWEEN_REPORTS = 0.3  # seconds
_ORPHANED = 60.0  # seconds in which a worker whose parent was killed has to save its work

WAYS_OUT = (signal.SIGINT, signal.SIGTERM)


class WorkerError(ValueError):
    """A process of a job was killed; what it had saved is kept."""


def side_by_side(
    work: Sequence[J],
    jobs: int,
    run: Callable[[J, Advance], R],
    label: Callable[[J], str],
    board: Board,
) -> list[R]:
    """``run(job, tell)`` for every job, ``jobs`` at a time, each in a process of its own.

    Where this process is interrupted, the jobs are: as by Ctrl-C, which training waits with until its state is
    saved. Where it is killed, they are too.

    Args:
        work: the jobs; like what comes of them they can be pickled.
        jobs: how many at a time.
        run: a function of a module; called with the job and a function that tells its progress.
        label: name of a job, for ``board``.
        board: shows progress.

    Raises:
        WorkerError: a process was killed, for want of memory for one.
        Exception: what a job raised; the others are interrupted.
        KeyboardInterrupt: interrupted.
    """
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    # The end of the pipe that nothing is written to closes with this process, however it ends.
    alive, held = context.Pipe(duplex=False)
    names = [label(job) for job in work]
    with ProcessPoolExecutor(
        min(jobs, len(work)), context, _start, (reports, alive)
    ) as pool:  # fmt: skip
        futures: list[Future[R]] = []
        try:
            futures += [pool.submit(_work, run, job, i) for i, job in enumerate(work)]
            while not all(future.done() for future in futures):
                for future in futures:
                    if future.done() and future.exception() is not None:
                        future.result()
                with suppress(queue.Empty):
                    number, *told = reports.get(timeout=0.2)
                    board(names[number], *told)
            return [future.result() for future in futures]
        except BrokenProcessPool:
            held.close()
            raise WorkerError(
                "a process was killed, or its memory ran out: what was saved is kept, the same command goes on from "
                "there; fewer at a time take less memory"
            ) from None
        except BaseException:
            held.close()  # every worker notices, and saves its state; none takes up another job
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            held.close()


def seldom(tell: Callable[[int, int, str], object]) -> Advance:
    """The same, a few times a second: thousands of meta-updates a second are not shown one by one."""
    last = -_BETWEEN_REPORTS

    def now_and_then(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done in (0, total) or not last <= now < last + _BETWEEN_REPORTS:
            last = now
            tell(done, total, note)

    return now_and_then


class _Worker:
    """What a worker knows of itself."""

    def __init__(self) -> None:
        self.reports: Any = None
        self.works = self.halted = self.interrupted = self.terminated = False

    def interrupt(self, number: int, _: FrameType | None) -> None:
        """Ctrl-C reaches a worker from the terminal and from its parent: once is enough."""
        self.terminated |= number == signal.SIGTERM
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt

    def watch(self, alive: Any) -> None:
        """Wait for the parent to stop or to be gone."""
        with suppress(EOFError, OSError):
            alive.recv_bytes()
        self.halted = True
        if self.works:
            os.kill(os.getpid(), signal.SIGINT)
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        deadline = time.monotonic() + _ORPHANED
        while self.works and time.monotonic() < deadline:
            time.sleep(0.1)
        os._exit(128 + signal.SIGINT)  # nobody would take its result


_worker = _Worker()


def _start(reports: Any, alive: Any) -> None:
    torch.set_num_threads(1)
    _worker.reports = reports
    reports.cancel_join_thread()  # a process that was killed may hold the lock of the queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an idle worker has nothing to save or to say
    threading.Thread(target=_worker.watch, args=(alive,), daemon=True).start()


def _work(run: Callable[[J, Advance], R], job: J, number: int) -> R:
    before = {each: signal.signal(each, _worker.interrupt) for each in WAYS_OUT}
    _worker.works = True
    try:
        if _worker.halted:  # the pool hands a worker its next job early
            raise KeyboardInterrupt
        return run(job, seldom(lambda *told: _worker.reports.put((number, *told))))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _worker.works = False
        if _worker.terminated:
            os._exit(128 + signal.SIGTERM)  # the work is saved; an idle worker would wait for more
