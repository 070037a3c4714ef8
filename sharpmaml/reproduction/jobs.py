"""Runs one after another in this process, or side by side, a process and a thread each."""

from __future__ import annotations

from collections.abc import Sequence

from landscape.console import Advance, Board
from sharpmaml import workers
from sharpmaml.reproduction.measuring import RunResult, Work, one_run


def side_by_side(work: Sequence[Work], jobs: int, board: Board) -> list[RunResult]:
    """All runs, ``jobs`` at a time.

    Args:
        work: the runs.
        jobs: how many at a time; 1 stays in this process, with all of its threads.
        board: shows progress.

    Raises:
        WorkerError: a process was killed.
        KeyboardInterrupt: interrupted; every run has saved what it had.
    """
    if jobs == 1 or len(work) < 2:
        return [
            one_run(one, workers.seldom(lambda *told, one=one: board(one.label, *told)))
            for one in work
        ]
    return workers.side_by_side(work, jobs, _one_run, lambda one: one.label, board)


def _one_run(work: Work, tell: Advance) -> RunResult:
    return one_run(work, tell)
