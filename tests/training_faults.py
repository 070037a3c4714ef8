"""Training runs that are killed or denied the disk, resumed, and held against one that was left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fault_tools import Ended, Server

from landscape.holding import held
from sharpmaml import checkpoint as checkpoints
from sharpmaml.config import TrainConfig

SINE = TrainConfig(
    data="sinusoid", shots=5, queries=5, iterations=18, meta_batch=2, checkpoint_every=4, validate_every=3,
    validation_episodes=4, inner_rate=0.01, test_steps=2, channels=8, dtype="float64", device="cpu",
    executor="loop",
)  # fmt: skip


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return TrainConfig.from_dict({**config.to_dict(), **changes})


RUNS = {
    "Sharp-MAML both, sinusoids, Adam": _changed(SINE, method="sharp-both", patience=9),
    "Meta-SGD, learned rates, early stop": _changed(SINE, method="meta-sgd", patience=2, inner_rate=0.3),
    "LookSAM in Sharp-MAML up": _changed(
        SINE, method="sharp-up", ascent_every=3, ascent_reuse=0.5, optimizer="sgd", schedule="cosine"
    ),
    "MAML, strokes, patience": TrainConfig(
        data="strokes", data_options={"alphabets": 4}, ways=3, queries=2, iterations=14, meta_batch=2,
        checkpoint_every=3, validate_every=2, patience=4, validation_episodes=3, channels=4,
        downsample="stride", device="cpu", executor="loop",
    ),
}  # fmt: skip

MODULES = ("sharpmaml.cli", "training_faults:warm")


def warm(count: int = len(RUNS)) -> None:
    """One meta-update of the first runs, for what they import."""
    from sharpmaml.training import train

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in list(RUNS.items())[:count]:
            train(_changed(config, iterations=1), Path(folder) / name)


def warm_one() -> None:
    """The same for runs of sinusoids."""
    warm(1)


def command(
    words: list[str],
    steps: str,
    delete: tuple[str, int] | None = None,
    press: tuple[int, int] | None = None,
) -> int:
    """``sharpmaml WORDS``; each meta-update writes its number, and the seconds to the first, to ``steps``.

    Args:
        words: of the command line.
        steps: a file.
        delete: a file or folder, and the meta-update after which it is removed.
        press: a signal that the process is sent, and the meta-update in which it is, three times in 50 ms.
    """
    from sharpmaml import cli
    from sharpmaml.trainer.learner import Learner

    file, began, plain = os.open(steps, os.O_WRONLY | os.O_CREAT), time.monotonic(), Learner.update
    first: list[float] = []

    def counted(self: Learner, result: Any, iteration: int) -> None:
        first.append(time.monotonic() - began)
        if press is not None and iteration + 1 == press[1]:
            threading.Thread(target=_press, args=(press[0],)).start()
        plain(self, result, iteration)
        os.pwrite(file, f"{iteration + 1:6d} {first[0]:.6f}".encode(), 0)
        if delete is not None and iteration + 1 == delete[1]:
            gone = Path(delete[0])
            gone.unlink() if gone.is_file() else shutil.rmtree(gone)

    Learner.update = counted  # type: ignore[method-assign]
    cli.main(words)
    return 0


def _press(number: int) -> None:
    for _ in range(3):
        os.kill(os.getpid(), number)
        time.sleep(0.02)


class Lab:
    """One run in a folder of its own: the whole one, and attempts that faults cut short.

    Args:
        server: forks the attempts.
        folder: for everything.
        config: the run.
    """

    def __init__(self, server: Server, folder: Path, config: TrainConfig) -> None:
        self.server, self.folder, self.config = server, folder, config
        self.folder.mkdir(parents=True)
        (folder / "settings.toml").write_text(config.to_toml())
        self.whole = folder / "whole"
        self.ended = self.train(self.whole)
        assert self.ended.status == 0, self.ended

    def train(
        self,
        out: Path,
        resume: bool = False,
        delete: tuple[str, int] | None = None,
        press: tuple[int, int] | None = None,
        **fault: Any,
    ) -> Ended:
        """``sharpmaml train`` in a process of its own, with a fault in ``out``; see `command` and `Server.run`."""
        (self.folder / "steps").write_text(f"{0:6d} 0\n")
        words = [
            "train",
            "--config",
            str(self.folder / "settings.toml"),
            "--out",
            str(out),
            "--quiet",
        ]
        words += ["--resume"] * resume
        gone = None if delete is None else (str(out / delete[0]), delete[1])
        files = (words, str(self.folder / "steps"), gone, press)
        return self.server.run("training_faults:command", *files, path=str(out), **fault)

    @property
    def reached(self) -> tuple[int, float]:
        """Meta-updates that the last attempt had done when it ended, and the seconds to its first."""
        step, seconds = (self.folder / "steps").read_text().split()[:2]
        return int(step), float(seconds)

    def unlike(self, out: Path, saved: int = 0) -> list[str]:
        """What of a finished run is not, bit for bit, as in the whole one; what is left over too.

        Args:
            out: the run.
            saved: a meta-update at which it was interrupted, and has a checkpoint of its own.
        """
        return list(_unlike(out, self.whole, f"checkpoints/step_{saved:06d}"))


def unreadable(out: Path) -> list[str]:
    """Files of a run, however it ended, that are not whole."""
    return list(_unreadable(out)) if out.exists() else []


def _unreadable(out: Path) -> Iterator[str]:
    for name in ("config.toml", "best.json"):
        try:
            if (out / name).exists():
                if name == "config.toml":
                    TrainConfig.from_toml(out / name)
                else:
                    checkpoint = json.loads((out / name).read_text())["checkpoint"]
                    checkpoints.read(out / "checkpoints" / checkpoint)
        except (ValueError, OSError) as error:
            yield f"{name}: {error}"
    for folder in (out / "checkpoints").glob("step_*"):
        try:
            checkpoints.read(folder)
            checkpoints.read_trainer(folder)
        except (ValueError, OSError) as error:
            yield f"{folder.name}: {error}"
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["iteration"] != number:
                yield f"metrics.jsonl: line {number} is of another meta-update"
        except ValueError:
            if number < len(lines) or line.endswith("\n"):
                yield f"metrics.jsonl: line {number} of {len(lines)}"


def _unlike(out: Path, whole: Path, saved: str) -> Iterator[str]:
    found, wanted = _names(out), _names(whole)
    found -= {name for name in found - wanted if name.startswith(saved)}
    if found != wanted:
        yield f"files: {sorted(found ^ wanted)}"
        return
    for name in ("config.toml", "best.json"):
        if (out / name).read_bytes() != (whole / name).read_bytes():
            yield name
    if _records(out) != _records(whole):
        yield "metrics.jsonl"
    for folder in checkpoints.steps(whole):
        folder, twin = out / "checkpoints" / folder.name, folder
        for name in ("model.safetensors", "rates.safetensors"):
            if (folder / name).exists() and (folder / name).read_bytes() != (
                twin / name
            ).read_bytes():
                yield f"{folder.name}/{name}"
        if not same(checkpoints.read_trainer(folder), checkpoints.read_trainer(twin)):
            yield f"{folder.name}/trainer.pt"


def _names(run: Path) -> set[str]:
    return {str(p.relative_to(run)) for p in run.rglob("*")}


def _records(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of values and tensors have the same bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@dataclass
class Tally:
    """What a campaign of kills came to.

    Attributes:
        kills: how many.
        moments: of them by the operation that they met; ``"between"`` two of them.
        finished: runs that came to their end.
        unreadable: files that were not whole after a kill.
        unlike: what of finished runs was not as in the whole one.
        lost: meta-updates done again after a kill, the worst.
        restarts: seconds from the start of a process to its first meta-update.
    """

    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    unreadable: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    lost: int = 0
    restarts: list[float] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything was not as it should be."""
        return bool(self.unreadable or self.unlike)


def kept(out: Path) -> int:
    """Meta-updates in the last checkpoint."""
    found = checkpoints.steps(out)
    return int(found[-1].name.removeprefix("step_")) if found else 0


def killed(lab: Lab, kind: str, count: int, seed: int) -> Tally:
    """Kill runs until ``count`` kills are done and the last run has come to its end.

    Args:
        lab: the run.
        kind: ``"time"``: SIGKILL after a random time; ``"operation"``: before a random operation on a file;
            ``"torn"``: in the middle of a random write.
        count: of kills.
        seed: of the moments.
    """
    moments, tally = random.Random(f"{kind} {seed}"), Tally()
    writes = [i for i, what in enumerate(lab.ended.operations, 1) if what.startswith("write")]
    number = 0
    while tally.kills < count:
        out = lab.folder / f"{kind}-{seed}-{number}"
        number += 1
        resume = False
        while True:
            if kind == "time":
                fault: dict[str, Any] = {"after": moments.uniform(0.0, 1.1) * lab.ended.seconds}
            elif kind == "operation":
                fault = {"kind": "kill", "at": moments.randint(1, lab.ended.seen)}
            else:
                fault = {"kind": "torn", "at": moments.choice(writes)}
            if tally.kills >= count:
                fault = {}
            ended = lab.train(out, resume, **fault)
            resume = out.exists()
            step, seconds = lab.reached
            tally.restarts += [seconds] if step else []
            if ended.status == 0:
                break
            if ended.status != -9:
                tally.unlike.append(f"{out.name}: status {ended.status}: {ended.stderr}")
                break
            _count(tally, lab, out, ended, kind, step)
        tally.finished += 1
        tally.unlike += [f"{out.name}: {what}" for what in lab.unlike(out)]
    return tally


def killed_in_turn(lab: Lab, kind: str = "kill", every: int = 1) -> Tally:
    """A run killed at its n-th operation and resumed, for every ``every``-th n that it has."""
    tally = Tally()
    for at in range(1, lab.ended.seen + 1, every):
        out = lab.folder / f"{kind}-{at}"
        ended = lab.train(out, kind=kind, at=at)
        step, _ = lab.reached
        if ended.status != -9:
            tally.unlike.append(f"{out.name}: status {ended.status}: {ended.stderr}")
        _count(tally, lab, out, ended, "operation", step)
        ended = lab.train(out, resume=out.exists())
        tally.restarts += [lab.reached[1]] if lab.reached[0] else []
        tally.finished += 1
        found = lab.unlike(out) if ended.status == 0 else [ended.stderr]
        tally.unlike += [f"{out.name} ({ended.operations[-1:]}): {what}" for what in found]
    return tally


def _count(tally: Tally, lab: Lab, out: Path, ended: Ended, kind: str, step: int) -> None:
    tally.kills += 1
    met = ended.operations[-1].split()[0] if kind != "time" and ended.operations else "between"
    tally.moments[met] += 1
    tally.unreadable += [f"{out.name}: {what}" for what in unreadable(out)]
    if step:
        tally.lost = max(tally.lost, step - kept(out))


def refused(lab: Lab, kind: str, every: int = 1, first: int = 1) -> Tally:
    """A run whose n-th operation fails (full disk, read-only, disk error), and what the same command makes of it then.

    It ends with status 1 and one line, or goes on where the operation was not needed; without the fault it goes on
    to the same bits.
    """
    tally = Tally()
    for at in range(first, lab.ended.seen + 1, every):
        out = lab.folder / f"{kind}-{at}"
        ended = lab.train(out, kind=kind, at=at)
        tally.kills += 1
        what = ended.operations[at - 1].split()[0] if len(ended.operations) >= at else "none"
        tally.moments[what if ended.status else f"{what}, went on"] += 1
        tally.unreadable += [f"{out.name}: {each}" for each in unreadable(out)]
        tally.lost = max(tally.lost, lab.reached[0] - kept(out)) if ended.status else tally.lost
        one_line = len(ended.lines) == 1 and ended.stderr.startswith("error: cannot write ")
        if ended.status not in (0, 1) or (ended.status and not one_line):
            tally.unlike.append(
                f"{out.name}: {ended.operations[at - 1 : at]} {ended.status} {ended.stderr}"
            )
        saved = kept(out)  # what is left of a run that could not go on, at whatever meta-update
        ended = lab.train(out, resume=out.exists() and any(out.iterdir()))
        tally.finished += 1
        found = lab.unlike(out, saved) if ended.status == 0 else [ended.stderr]
        tally.unlike += [f"{out.name}: {each}" for each in found]
    return tally


def scenes(lab: Lab) -> dict[str, dict[str, Any]]:
    """What else happens to runs: what was done, what the run said, and whether all of it was right."""
    found: dict[str, dict[str, Any]] = {}

    def note(
        what: str,
        ended: Ended,
        status: int,
        says: str,
        out: Path,
        resumed: bool = True,
        saves: bool = False,
    ) -> None:
        wrong, saved = unreadable(out), 0
        if saves:
            saved = kept(out)
            wrong += [] if saved == lab.reached[0] > 0 else [f"{saved} saved of {lab.reached[0]}"]
        wrong += [] if ended.status == status else [f"status {ended.status}"]
        wrong += [] if len(ended.lines) == bool(says) and says in ended.stderr else ["its words"]
        if resumed:
            again = lab.train(out, resume=out.exists() and any(out.iterdir()))
            wrong += lab.unlike(out, saved) if again.status == 0 else [again.stderr]
        said = f"status {ended.status}" + f": {ended.stderr.strip()}".rstrip(": ")
        said = said.replace(f"{lab.folder}/", "")
        found[what] = {"said": said, "right": not wrong, "wrong": wrong}

    saves = [i for i, what in enumerate(lab.ended.operations, 1) if "checkpoints/.step" in what]
    for kind, status in (("int", 130), ("term", 143)):
        for where, at in (("as it starts", 5), ("within a save", saves[len(saves) // 2])):
            out = lab.folder / f"{kind}-{at}"
            says = "interrupted; files" if kind == "int" else "ended by SIGTERM; files"
            note(f"SIG{kind.upper()} {where}", lab.train(out, kind=kind, at=at), status, says, out)
    for number, status, name in ((2, 130, "Ctrl-C"), (15, 143, "SIGTERM")):
        out = lab.folder / f"pressed-{number}"
        says = "interrupted; files" if number == 2 else "ended by SIGTERM; files"
        ended = lab.train(out, press=(number, 2))
        note(f"{name} three times in a meta-update", ended, status, says, out, saves=True)
    out = lab.folder / "removed-log"
    ended = lab.train(out, delete=("metrics.jsonl", 5))
    note(
        "`metrics.jsonl` removed",
        ended,
        1,
        "somebody removed it; the state after",
        out,
        resumed=False,
    )
    out = lab.folder / "removed-run"
    ended = lab.train(out, delete=("", 5))
    note("run folder removed", ended, 1, "somebody removed it; the state after", out, resumed=False)
    out = lab.folder / "removed-checkpoints"
    ended = lab.train(out, delete=("checkpoints", 5))
    right = ended.status == 0 and "step_000003, which is not there; last: " in ended.stdout
    said = f"status {ended.status}: {ended.stdout.splitlines()[0]}".replace(f"{lab.folder}/", "")
    found["`checkpoints/` removed"] = {"said": said, "right": right, "wrong": []}
    out = lab.folder / "clock"
    note("wall clock set back by a year", lab.train(out, clock=(40, -365 * 86400.0)), 0, "", out)
    out = lab.folder / "second"
    with held(lab.whole / "metrics.jsonl"):
        ended = lab.train(lab.whole, resume=True)
    says = (
        f"metrics.jsonl is being written by process {os.getpid()} on {socket.gethostname()} since "
    )
    note("a second process on the folder", ended, 1, says, lab.whole, resumed=False)
    return found
