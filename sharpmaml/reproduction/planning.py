"""How far a budget of minutes goes: meta-updates of every experiment, and how much is measured."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from landscape import json_text
from landscape.sharpness.registry import available, forecast, resolved
from landscape.wording import one_line
from sharpmaml.checkpoint import read
from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import evaluate
from sharpmaml.objective import meta_objective
from sharpmaml.reproduction.depth import ADAPTED, DEPTHS, HEADLINE, Depth
from sharpmaml.reproduction.keeping import write_text
from sharpmaml.reproduction.protocols import Experiment, Protocol
from sharpmaml.sharpness import measures
from sharpmaml.training import train

SCHEMA = "sharpmaml.reproduction/1"
TRAINING_SHARE = 0.6
_FASTEST_WORTH_TIMING_LONGER = 0.05  # seconds an update


@dataclass(frozen=True)
class Stage:
    """One experiment of a plan.

    Attributes:
        iterations: meta-updates of every run: all methods have the same number.
        depth: how much is measured of every run.
        seconds: what was timed before: ``update`` by method, ``episode`` (one scored), ``task`` (one
            meta-gradient of one); empty where nothing had to be.
    """

    iterations: int
    depth: Depth
    seconds: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is done; written before the first run starts, and obeyed after an interruption.

    Attributes:
        protocol: name.
        size: ``published`` or ``small``.
        methods: in the order of the tables.
        seeds: how many.
        budget: minutes in all, or ``None``: the whole protocol.
        alpha: radius of both levels, where it was given.
        set_name: the data set's own name.
        stages: by experiment.
    """

    protocol: str
    size: str
    methods: tuple[str, ...]
    seeds: int
    budget: float | None
    alpha: float | None
    set_name: str
    stages: Mapping[str, Stage]

    def to_json(self) -> str:
        """The text of ``plan.json``."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_file(cls, file: Path) -> Plan | None:
        """The plan in a file; ``None`` where there is none.

        Raises:
            ValueError: the file is not a plan.
        """
        try:
            record = json_text.read(file)
            if record.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            stages = {
                key: Stage(int(s["iterations"]), Depth(**s["depth"]), dict(s["seconds"]))
                for key, s in record.pop("stages").items()
            }
            return cls(**{**record, "methods": tuple(record["methods"]), "stages": stages})
        except FileNotFoundError:
            return None
        except (
            OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"{file} is not a plan of a reproduction ({one_line(error)}): choose another --out, or delete it"
            ) from None


def planned(
    out: Path,
    protocol: Protocol,
    wanted: Plan,
    configs: Mapping[str, Mapping[str, TrainConfig]],
    *,
    jobs: int = 1,
    depth: Depth | None = None,
) -> Plan:
    """The plan of a folder: the one it holds where it fits, else a new one, which is written.

    A larger budget extends what is there; what was planned is never taken back.

    Args:
        out: the folder.
        protocol: whose experiments.
        wanted: what is asked for, still without stages.
        configs: experiment -> method -> its settings.
        jobs: runs side by side.
        depth: how much to measure, instead of what the budget allows.

    Raises:
        ValueError: the folder holds another protocol, size, radius or data set.
    """
    old = Plan.from_file(out / "plan.json")
    if old is not None:
        for name in ("protocol", "size", "alpha", "set_name"):
            if getattr(old, name) != getattr(wanted, name):
                raise ValueError(
                    f"{out} holds a reproduction with {name} {getattr(old, name)!r}, "
                    f"not {getattr(wanted, name)!r}: choose another --out"
                )
        same = all(getattr(old, n) == getattr(wanted, n) for n in ("methods", "seeds", "budget"))
        if same and depth is None and all(e.key in old.stages for e in protocol.experiments):
            return old
    seconds: dict[str, Mapping[str, Any]] = {}
    for e in protocol.experiments:
        known = old.stages[e.key].seconds if old is not None and e.key in old.stages else {}
        if wanted.budget is not None and set(configs[e.key]) - set(known.get("update", {})):
            known = timed(configs[e.key])
        seconds[e.key] = known
    stages = _stages(protocol.experiments, wanted, seconds, jobs, depth)
    if old is not None:
        stages = {
            **old.stages,
            **{key: _deeper(stage, old.stages.get(key)) for key, stage in stages.items()},
        }
    made = dataclasses.replace(wanted, stages=stages)
    write_text(out / "plan.json", made.to_json())
    return made


def timed(configs: Mapping[str, TrainConfig]) -> dict[str, Any]:
    """Seconds of a meta-update of each method, of a scored episode and of a task's meta-gradient."""
    update: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method, config in configs.items():
            run = Path(folder) / method
            update[method] = _seconds_an_update(config, run, 8)
            if update[method] < _FASTEST_WORTH_TIMING_LONGER:
                update[method] = _seconds_an_update(config, run, 100)
        given = read(Path(folder) / next(iter(configs)))
        device, root = given.config.device, given.config.data_root
        objective = meta_objective(given, episodes=2, split="train", data_root=root, device=device)
        task = min(_clocked(lambda: objective.gradient(objective.theta)) for _ in range(2)) / 2
        episode = min(
            _clocked(lambda: evaluate(given, episodes=4, data_root=root, device=device))
            for _ in range(2)
        )
    return {"update": update, "episode": episode / 4, "task": task}


def _seconds_an_update(config: TrainConfig, run: Path, iterations: int) -> float:
    short = dataclasses.replace(
        config, iterations=iterations, validation_episodes=2, checkpoint_every=10**6,
        validate_every=10**6,
    )  # fmt: skip
    seen: list[tuple[int, float]] = []
    train(
        short, run, resume=True,
        progress=lambda record: seen.append((record["iteration"], time.perf_counter())),
    )  # fmt: skip
    (first, began), (last, ended) = seen[0], seen[-2]  # the last one also validates
    return (ended - began) / (last - first)


def _clocked(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _stages(
    experiments: Sequence[Experiment],
    wanted: Plan,
    seconds: Mapping[str, Mapping[str, Any]],
    jobs: int,
    depth: Depth | None,
) -> dict[str, Stage]:
    if wanted.budget is None:
        deepest = depth or DEPTHS[-1]
        return {e.key: Stage(e.iterations, deepest, seconds[e.key]) for e in experiments}
    runs = len(wanted.methods) * wanted.seeds
    whole = 60 * wanted.budget * jobs
    updates = _shared(
        {e.key: e.iterations for e in experiments},
        {
            e.key: wanted.seeds * sum(seconds[e.key]["update"][m] for m in wanted.methods)
            for e in experiments
        },
        TRAINING_SHARE * whole,
    )
    spare = (1 - TRAINING_SHARE) * whole / len(experiments) / runs
    return {
        e.key: Stage(
            updates[e.key],
            depth or fitting(e, seconds[e.key], spare, wanted.seeds),
            seconds[e.key],
        )
        for e in experiments
    }


def _shared(full: Mapping[str, int], cost: Mapping[str, float], whole: float) -> dict[str, int]:
    """Meta-updates by experiment: equal time for each, what one does not need goes to the others.

    >>> _shared({"a": 60000, "b": 100}, {"a": 0.5, "b": 1.0}, 1000.0)
    {'b': 100, 'a': 1800}
    """
    found: dict[str, int] = {}
    left = whole
    cheapest_first = sorted(full, key=lambda key: full[key] * cost[key])
    for i, key in enumerate(cheapest_first):
        share = int(left / (len(cheapest_first) - i) / cost[key])
        step = 50 if share >= 500 else 10
        found[key] = min(full[key], max(share // step * step, 10))
        left = max(left - found[key] * cost[key], 0.0)
    return found


def fitting(experiment: Experiment, seconds: Mapping[str, Any], spare: float, seeds: int) -> Depth:
    """The deepest of `DEPTHS` whose estimated time for one run is within ``spare`` seconds."""
    chosen = DEPTHS[0]
    for depth in DEPTHS[1:]:
        if estimated(experiment, seconds, depth, seeds) <= spare:
            chosen = depth
    return chosen


def estimated(
    experiment: Experiment, seconds: Mapping[str, Any], depth: Depth, seeds: int
) -> float:
    """About how many seconds the measurements of one run take, the mean over seeds."""
    episodes = depth.episodes * (1 + len(experiment.steps))
    episodes += depth.condition_episodes * len(experiment.conditions)
    drawn = (depth.points**2 + depth.line_points) * depth.ledger_tasks / seeds
    entries = available(cast(Any, _Tasks()))
    full = resolved(entries, depth.settings())
    gradients = sum(
        forecast(entries[n], full[n]) for n in (set(entries) if depth.everything else HEADLINE)
    ) / (seeds if depth.everything else 1)
    adapted = sum(forecast(entries[n], full[n]) for n in ADAPTED)
    products = gradients * depth.ledger_tasks + adapted * depth.adapted_tasks
    return float(seconds["episode"] * (episodes + drawn) + seconds["task"] * products)


def _deeper(new: Stage, old: Stage | None) -> Stage:
    """What a larger budget adds to a stage; what it has already stays."""
    if old is None:
        return new
    names = [depth.name for depth in DEPTHS]
    both_known = new.depth.name in names and old.depth.name in names
    keep = both_known and names.index(old.depth.name) > names.index(new.depth.name)
    return Stage(max(new.iterations, old.iterations), old.depth if keep else new.depth, new.seconds)


class _Tasks:
    """Stands for a meta objective where only the names of its measures are asked for."""

    def measures(self) -> Mapping[str, Any]:
        return measures()
