"""Ranks of one training run, forked, of which one is killed or stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

SIZE = 3


def command(
    words: list[str],
    folder: str,
    victim: int = -1,
    sends: int = 0,
    step: int = 0,
    silence: float = 3.0,
) -> int:
    """``sharpmaml WORDS`` in three processes, as ``torchrun`` starts them; what each came to is in ``folder``.

    Args:
        words: of the command line.
        folder: for ``ranks.json``, a list of status, standard error and seconds after the signal.
        victim: the rank that is sent a signal, by itself.
        sends: the signal.
        step: the meta-update in which it is.
        silence: seconds without a sign of life after which a rank counts as lost.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    os.environ.update(WORLD_SIZE=str(SIZE), MASTER_ADDR="localhost", MASTER_PORT=port)
    place = Path(folder)
    processes = []
    for rank in range(SIZE):
        process = os.fork()
        if process == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            os.dup2(os.open(place / f"stderr{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            _rank(words, place, sends if rank == victim else 0, step, silence)
        processes.append(process)
    ended: list[Any] = [None] * SIZE
    others = [rank for rank in range(SIZE) if not (rank == victim and sends == signal.SIGSTOP)]
    for rank in others:
        status = os.waitstatus_to_exitcode(os.waitpid(processes[rank], 0)[1])
        ended[rank] = [status, "", time.monotonic()]
    if len(others) < SIZE:
        os.kill(processes[victim], signal.SIGKILL)
        os.waitpid(processes[victim], 0)
        ended[victim] = [-signal.SIGSTOP, "", time.monotonic()]
    struck = place / "struck"
    for rank, found in enumerate(ended):
        found[1] = (place / f"stderr{rank}").read_text()
        found[2] -= float(struck.read_text()) if struck.exists() else found[2]
    (place / "ranks.json").write_text(json.dumps(ended))
    return 0


def _rank(words: list[str], place: Path, number: int, at: int, silence: float) -> None:
    status = 70
    try:
        from landscape import heartbeat
        from sharpmaml import cli
        from sharpmaml.trainer.learner import Learner

        heartbeat.SILENCE, heartbeat.BEAT = silence, silence / 10
        plain = Learner.update

        def struck(self: Learner, result: Any, iteration: int) -> None:
            plain(self, result, iteration)
            if number and iteration + 1 == at:
                (place / "struck").write_text(str(time.monotonic()))
                os.kill(os.getpid(), number)

        Learner.update = struck  # type: ignore[method-assign]
        cli.main(words)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        from landscape import parallel

        parallel.leave()
        sys.stderr.flush()
        os._exit(status)
