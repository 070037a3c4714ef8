"""The whole reproduction: plan, runs one by one or side by side, and the page."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landscape import console
from landscape import device as devices
from landscape.holding import held
from landscape.writing import write_error
from sharpmaml.config import METHODS as KNOWN
from sharpmaml.config import TrainConfig
from sharpmaml.data import DataError, load_images, make_source
from sharpmaml.reproduction.depth import Depth
from sharpmaml.reproduction.jobs import side_by_side
from sharpmaml.reproduction.measuring import Work
from sharpmaml.reproduction.planning import Plan, planned
from sharpmaml.reproduction.protocols import METHODS, SIZES, Protocol, protocol_of
from sharpmaml.reproduction.results import Findings
from sharpmaml.reproduction.writing import write_all


@dataclass(frozen=True)
class Reproduction:
    """A finished reproduction.

    Attributes:
        page: the HTML page.
        plan: what was done.
        findings: every number.
        seconds: what this call took.
    """

    page: Path
    plan: Plan
    findings: Findings
    seconds: float


def reproduce(
    name: str,
    out: str | Path,
    *,
    seeds: int = 3,
    budget: float | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    jobs: int = 1,
    size: str | None = None,
    alpha: float | None = None,
    executor: str = "auto",
    methods: Sequence[str] = METHODS,
    quiet: bool = False,
    protocol: Protocol | None = None,
    depth: Depth | None = None,
) -> Reproduction:
    """Train every method on the same episodes, measure all of them, and write one page.

    Everything that was finished is found again after an interruption. A larger ``budget``, or none, with
    the same folder extends: training goes on to more meta-updates.

    Args:
        name: ``omniglot``, ``miniimagenet`` or ``sinusoid``.
        out: folder; what is already in it is continued.
        seeds: 0, 1, ...: each gives every method the same weights and the same episodes.
        budget: minutes for everything, about; ``None``: the whole protocol.
        data_root: where the data set lies, where it needs files.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        jobs: runs side by side, one process and one thread each.
        size: ``published`` settings, or the ``small`` ones for a CPU; by default small on a CPU.
        alpha: radius of both levels, instead of the protocol's.
        executor: how meta-gradients are computed in training, see `sharpmaml.config.TrainConfig`; the
            numbers differ by rounding.
        methods: the first is what the others are held against.
        quiet: no progress.
        protocol: instead of the one of that name.
        depth: how much to measure, instead of what the budget allows.

    Raises:
        ValueError: an unknown name, size or method, no seeds, a budget that is not positive, or a folder
            that holds another reproduction.
        DataError: the data set cannot be read.
        HeldError: another process makes a reproduction in the folder.
        WriteError: the disk is full, or the folder cannot be written to.
        WorkerError: a process of ``jobs`` was killed.
        KeyboardInterrupt: interrupted; the same call continues.
    """
    began = time.monotonic()
    found = protocol or protocol_of(name)
    place = Path(out)
    _check(seeds, budget, jobs, methods)
    wanted = Plan(
        found.name, _size(size, device, found), tuple(methods), seeds, budget, alpha,
        set_name(found, data_root), {},
    )  # fmt: skip
    root = None if data_root is None else str(data_root)

    def config(key: str, method: str, seed: int, iterations: int | None) -> TrainConfig:
        experiment = next(e for e in found.experiments if e.key == key)
        return experiment.config(
            method, seed, size=wanted.size, iterations=iterations, alpha=alpha, data_root=root, device=device,
            executor=executor,
        )  # fmt: skip

    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(place, error) from None
    with held(place / "plan.json"), console.progress_board(quiet) as board:
        board("plan", 0, 1, "timing" if budget else "reading")
        templates = {
            e.key: {method: config(e.key, method, 0, None) for method in methods}
            for e in found.experiments
        }
        plan = planned(place, found, wanted, templates, jobs=jobs, depth=depth)
        board("plan", 1, 1, _told(plan))
        work = [
            Work(
                place, e, config(e.key, method, seed, plan.stages[e.key].iterations), plan.stages[e.key].depth
            )
            for seed in range(seeds)
            for e in found.experiments
            for method in methods
        ]  # fmt: skip
        runs = side_by_side(work, jobs, board)
        board("page", 0, 1, "drawing")
        findings = Findings(found, plan, tuple(runs))
        page = write_all(
            place, findings, _again(found, place, plan, executor, needs_root=data_root is not None)
        )
        board("page", 1, 1, "drawn")
    return Reproduction(page, plan, findings, time.monotonic() - began)


def set_name(protocol: Protocol, data_root: str | Path | None) -> str:
    """The name that the data set gives itself, or that of the data where it has no images.

    Raises:
        DataError: the data set cannot be read; its experiments tell what they need.
    """
    settings = protocol.experiments[0].settings
    options = dict(settings.get("data_options", {}))
    if not protocol.complete:
        make_source(protocol.data, options=options)
        return protocol.data
    try:
        return load_images(protocol.data, data_root, **options).name
    except DataError as error:
        if data_root is None:
            raise DataError(f"{error} (--data-root says where the files are)") from None
        raise


def _check(seeds: int, budget: float | None, jobs: int, methods: Sequence[str]) -> None:
    for what, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise ValueError(f"{what} is {value}: expected at least 1")
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"budget is {budget}: expected minutes, more than 0")
    unknown = [method for method in methods if method not in KNOWN]
    if unknown or not methods:
        raise ValueError(
            f"unknown method {unknown[0]!r}: expected some of {', '.join(KNOWN)}"
            if unknown
            else "no methods: expected at least one"
        )


def _size(size: str | None, device: str, protocol: Protocol) -> str:
    kind = devices.resolve(device).type
    if not any(e.small for e in protocol.experiments) and size in (None, *SIZES):
        return "published"  # it is small enough
    if size is None:
        return "small" if kind == "cpu" else "published"
    if size not in SIZES:
        raise ValueError(f"size is {size!r}: expected {' or '.join(SIZES)}")
    return size


def _told(plan: Plan) -> str:
    return "; ".join(
        f"{key}: {stage.iterations} meta-updates, measured: {stage.depth.name}"
        for key, stage in plan.stages.items()
    )


def _again(
    protocol: Protocol, out: Path, plan: Plan, executor: str, *, needs_root: bool
) -> list[str]:
    """The command that goes on to the whole protocol, and the one of the published size where it is another."""
    words = f"sharpmaml reproduce {protocol.name} --seeds {plan.seeds}"
    keys = [e.key for e in protocol.experiments]
    if keys != [e.key for e in protocol_of(protocol.name).experiments]:
        words += f" --experiments {' '.join(keys)}"
    if plan.alpha is not None:
        words += f" --alpha {plan.alpha:g}"
    if executor != "auto":
        words += f" --executor {executor}"
    if needs_root:
        words += " --data-root DIR"  # where data lie is nobody's business but this machine's
    place = out.name if out.is_absolute() else str(out)
    found = [f"{words} --size {plan.size} --out {place}"]
    if plan.size != "published":
        found.append(f"{words} --size published --device cuda --out {place}-published")
    return found


def with_experiments(protocol: Protocol, keys: Sequence[str]) -> Protocol:
    """A protocol with some of its experiments alone.

    Raises:
        ValueError: an experiment that it does not have.
    """
    known = {e.key: e for e in protocol.experiments}
    missing = [key for key in keys if key not in known]
    if missing:
        raise ValueError(
            f"unknown experiment {missing[0]!r} of {protocol.name}: expected some of {', '.join(known)}"
        )
    return dataclasses.replace(protocol, experiments=tuple(known[key] for key in keys))
