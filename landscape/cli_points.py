"""Several checkpoints of one network on the command line: the points between which a surface leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli_source import Source

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.directions import Plane
    from landscape.objective import Objective

# Settings in which two checkpoints differ by being two; hashes of norm statistics move or are told of elsewhere.
_OWN = {"checkpoint", "path", "label", "name", "fingerprint", "fixed_sha256"}


@dataclass(frozen=True)
class Points:
    """Points of one parameter space.

    Attributes:
        objective: of the first checkpoint: all losses are its loss.
        thetas: parameters of every checkpoint, each ``(params,)``.
        labels: short names.
        buffers: tensors of every checkpoint by name, where norm statistics are to move with the point.
        remarks: in what the checkpoints differ beside their parameters, one sentence each.
    """

    objective: Objective
    thetas: tuple[Tensor, ...]
    labels: tuple[str, ...]
    buffers: tuple[Mapping[str, Tensor], ...] | None
    remarks: tuple[str, ...]

    def plane(self) -> Plane:
        """The line between two points, or the plane through three.

        Raises:
            ValueError: equal points, or three on one line.
        """
        from landscape.directions import interpolation
        from landscape.planes import plane_through

        make: Any = interpolation if len(self.thetas) == 2 else plane_through
        made: Plane = make(self.objective, *self.thetas, buffers=self.buffers, labels=self.labels)
        return made


def read_points(checkpoints: Sequence[Path], source: Source) -> Points:
    """The parameters of checkpoints of one network.

    Raises:
        ValueError: a checkpoint cannot be read, or is of another network.
    """
    objective = source.objective(checkpoints[0])
    thetas, states, remarks = [objective.theta], [_state(objective)], []
    labels = short_labels(checkpoints)
    for path, label in zip(checkpoints[1:], labels[1:], strict=True):
        other = source.objective(path)
        _require_same_network(objective, other, path)
        differing = [
            name
            for name in sorted({*objective.settings, *other.settings} - _OWN)
            if objective.settings.get(name) != other.settings.get(name)
        ]
        if differing:
            remarks.append(
                f"{label} has another {', '.join(differing)}: the loss is that of {labels[0]} everywhere"
            )
        fixed = _fixed_apart(objective, other)
        if fixed:
            remarks.append(
                f"{len(fixed)} frozen tensors of {label} differ ({fixed[0]}, ...): those of {labels[0]} are used"
            )
        thetas.append(other.theta)
        states.append(_state(other))
    moving = getattr(objective, "norm", None) == "interpolated"
    return Points(
        objective, tuple(thetas), labels, tuple(states) if moving else None, tuple(remarks)
    )


def short_labels(paths: Sequence[Path]) -> tuple[str, ...]:
    """The shortest ends of paths that tell them apart; numbered where one is given twice.

    >>> short_labels([Path("runs/a/w.pt"), Path("runs/b/w.pt")])
    ('a/w.pt', 'b/w.pt')
    """
    whole = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, whole)) + 1):
        tails = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(tails)) == len(tails):
            return tuple(tails)
    return tuple(f"{path.name} ({i})" for i, path in enumerate(paths, 1))


def _state(objective: Objective) -> Mapping[str, Tensor]:
    module = getattr(objective, "module", None)
    return {} if module is None else module.state_dict()


def _require_same_network(ours: Objective, theirs: Objective, path: Path) -> None:
    pairs = [dict(zip(o.space.names, o.space.shapes, strict=True)) for o in (ours, theirs)]
    if pairs[0] == pairs[1]:
        return
    name = next(n for n in {**pairs[0], **pairs[1]} if pairs[0].get(n) != pairs[1].get(n))
    first, second = (
        "missing" if n is None else f"of shape {tuple(n)}" for n in (p.get(name) for p in pairs)
    )
    raise ValueError(
        f"{path} is of another network: {name} is {second} there and {first} in the first checkpoint"
    )


def _fixed_apart(ours: Objective, theirs: Objective) -> list[str]:
    """Names of the parameters that are not part of theta and differ."""
    import torch

    modules = [getattr(o, "module", None) for o in (ours, theirs)]
    if modules[0] is None or modules[1] is None:
        return []
    moving = set(ours.space.names)
    others = dict(modules[1].named_parameters())
    return [
        name
        for name, value in modules[0].named_parameters()
        if name not in moving and name in others and not torch.equal(value, others[name])
    ]
