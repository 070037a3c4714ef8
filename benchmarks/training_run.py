"""The two processes of ``training.py``, and its measurements on disk."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MINE, THEIRS = str(HERE / "training_ours.py"), str(HERE / "training_peers.py")
EXAMPLES = ("torchopt", "higher", "learn2learn")
PEERS = (*EXAMPLES, "torchopt in vmap")
"""As their examples do it, and one put together here from parts."""

Row = dict[str, Any]


class Server:
    """A process that answers questions, see ``training_problem.serve``."""

    def __init__(self, python: str, script: str, device: str) -> None:
        words = [python, "-W", "ignore", script]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            stderr=None if os.environ.get("VERBOSE") else subprocess.DEVNULL,
        )  # fmt: skip
        self._device = device
        self.versions = self._answer()["versions"]

    def ask(self, **question: Any) -> Row:
        """What it answers; ``error`` where the candidate failed."""
        if self._process.stdin is None:
            raise RuntimeError("the process has no standard input")
        print(
            json.dumps({"device": self._device, **question}), file=self._process.stdin, flush=True
        )
        return self._answer()

    def close(self) -> None:
        """No more questions."""
        self._process.communicate()

    def _answer(self) -> Row:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("a process of the benchmark ended: run it by hand to see why")
        return dict(json.loads(line))


class Run:
    """The two environments, and what was measured already."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cache = Path(options.cache)
        self.kept = self.cache / options.device.replace(":", "-")
        self.kept.mkdir(parents=True, exist_ok=True)
        self._servers: dict[str, Server] = {}

    def server(self, candidate: str, fresh: bool = False) -> Server:
        """The one that knows a candidate."""
        theirs = candidate in PEERS
        words = (self.options.peers, THEIRS) if theirs else (sys.executable, MINE)
        if fresh:
            return Server(*words, self.options.device)
        key = words[1]
        if key not in self._servers:
            self._servers[key] = Server(*words, self.options.device)
        return self._servers[key]

    def once(self, words: Sequence[object], make: Callable[[], Row | None]) -> Row:
        """What ``make`` returned the first time; an error is tried again in the next run."""
        name = "-".join(str(word) for word in words).replace("/", "+").replace(" ", "_")
        path = self.kept / f"{name}.json"
        if not path.exists():
            found = make() or {"error": "failed"}
            print(f"{name}: {found}", file=sys.stderr)
            if "error" in found:
                return found
            path.write_text(json.dumps(found), encoding="utf-8")
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def candidates(self, names: Sequence[str]) -> list[str]:
        """Those that were asked for and can be had."""
        wanted = self.options.only.split(";") if self.options.only else [""]
        have = [name for name in names if name not in PEERS or self.options.peers]
        return [name for name in have if any(part in name for part in wanted)]

    def rounds(
        self, part: str, problem: str, names: Sequence[str], base: str | None = None
    ) -> dict[str, list[Row]]:
        """Everything one after the other, then all of it again; what fails is left out of later rounds.

        With a ``base``, each takes turns with it call by call.
        """
        rows: dict[str, list[Row]] = {name: [] for name in names}
        for at in range(self.options.rounds):
            for name in names:
                if len(rows[name]) == at:
                    found = self.once(
                        (part, problem, name, at), lambda name=name: self._time(name, problem, base)
                    )  # type: ignore[misc]
                    if "error" not in found:
                        rows[name].append(found)
        return {name: found for name, found in rows.items() if found}

    def _time(self, name: str, problem: str, base: str | None) -> Row:
        words = {"problem": problem, "candidate": name, "folder": str(self.cache)}
        if base is not None:
            words["base"] = base
        what = "time" if base is None else "pair"
        return self.server(name).ask(what=what, least=self.options.least, **words)

    def gradient(self, problem: str, name: str) -> Any:
        """A meta-gradient in float64; ``None`` where the candidate failed."""
        path = self.kept / f"gradient-{problem}-{name}.npy".replace("/", "+").replace(" ", "_")
        if not path.exists():
            words = {"problem": problem, "candidate": name, "folder": str(self.cache)}
            found = self.server(name).ask(what="gradient", out=str(path), **words)
            if "error" in found:
                print(f"{problem}, {name}: {found['error']}", file=sys.stderr)
                return None
        return np.load(path)

    def memory(self, problem: str, name: str, steps: int | None = None) -> float | None:
        """Peak in MiB, in a process of its own."""

        def make() -> Row:
            server = self.server(name, fresh=True)
            words = {"problem": problem, "candidate": name, "folder": str(self.cache)}
            found = server.ask(what="memory", steps=steps, **words)
            server.close()
            return found

        return self.once(("memory", problem, name, steps), make).get("mib")

    def training(self, problem: str) -> Row | None:
        """What the training loop costs, in a process of its own; ``None`` where it fails."""
        words = [sys.executable, "-W", "ignore", MINE, "training", problem, self.options.device]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        return None if done.returncode else dict(json.loads(done.stdout.splitlines()[-1]))
