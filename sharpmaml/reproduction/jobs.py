"""Runs one after another in this process, or side by side, a process and a thread each."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from landscape.console import Board
from sharpmaml.reproduction.measuring import RunResult, Work, one_run, use_one_thread

_SECONDS_BETWEEN_REPORTS = 0.3


def side_by_side(work: Sequence[Work], jobs: int, board: Board) -> list[RunResult]:
    """All runs, ``jobs`` at a time.

    Args:
        work: the runs.
        jobs: how many at a time; 1 stays in this process, with all of its threads.
        board: shows progress.

    Raises:
        KeyboardInterrupt: interrupted; every run has saved what it had.
    """
    if jobs == 1 or len(work) < 2:
        return [
            one_run(one, _seldom(lambda *told, one=one: board(one.label, *told))) for one in work
        ]
    context = multiprocessing.get_context("spawn")
    reports, halt = context.Queue(), context.Event()
    with ProcessPoolExecutor(min(jobs, len(work)), context, _start_worker, (reports, halt)) as pool:
        futures: list[Future[RunResult]] = [pool.submit(_in_worker, one) for one in work]
        try:
            while not all(future.done() for future in futures):
                for future in futures:
                    if future.done() and future.exception() is not None:
                        future.result()
                try:
                    board(*reports.get(timeout=0.2))
                except queue.Empty:
                    continue
            return [future.result() for future in futures]
        except BaseException:
            # Workers were interrupted too, and save their state; none may take up another run.
            halt.set()
            pool.shutdown(cancel_futures=True)
            raise


_reports: Any = None
_halt: Any = None


def _start_worker(reports: Any, halt: Any) -> None:
    global _reports, _halt
    _reports, _halt = reports, halt
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an idle worker has nothing to save or to say


def _in_worker(work: Work) -> RunResult:
    if _halt.is_set():  # the pool hands a worker its next run early
        raise KeyboardInterrupt

    def tell(done: int, total: int, what: str) -> None:
        if _halt.is_set():
            raise KeyboardInterrupt
        _reports.put((work.label, done, total, what))

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return one_run(work, _seldom(tell))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _seldom(tell: Any) -> Any:
    """The same, a few times a second: thousands of meta-updates a second are not shown one by one."""
    last = 0.0

    def now_and_then(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done in (0, total) or now - last > _SECONDS_BETWEEN_REPORTS:
            last = now
            tell(done, total, what)

    return now_and_then
