"""Weights into a network: all of them and nothing else, or one line that says what does not fit."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.checkpoint import Weights


def fill(network: torch.nn.Module, weights: Weights) -> None:
    """Load the weights into the network.

    A tensor that the network ties to another may be missing, as in files that store it once. Counts of
    batches (``num_batches_tracked``) may be missing too: no output depends on them.

    Raises:
        ValueError: names or shapes differ, or the file holds two values for one tied tensor.
    """
    wanted = network.state_dict(keep_vars=True)
    counts = {name: t for name, t in wanted.items() if name.endswith("num_batches_tracked")}
    tensors = {**counts, **weights.named_as(wanted)}
    for names in _tied(wanted):
        stored = [name for name in names if name in tensors]
        for name in stored[1:]:
            if not torch.equal(tensors[name], tensors[stored[0]]):
                raise ValueError(
                    f"{weights.path} holds different values for {stored[0]} and {name}, which are one "
                    f"tensor in {type(network).__name__}: make the network without tying them"
                )
        tensors |= {name: tensors[stored[0]] for name in names if stored}
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = [
        name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    told = [
        f"{name} is {tuple(tensors[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in shapes
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:3])}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", told),
        )
        if names
    ]
    if parts:
        raise ValueError(
            f"{weights.path} is of another architecture than {type(network).__name__}: "
            f"{'; '.join(parts)}{_hint(missing, unexpected, shapes, wanted, tensors)}; "
            f"`landscape inspect {weights.path}` lists what it holds"
        )
    network.load_state_dict(tensors)


def _tied(wanted: dict[str, Tensor]) -> list[list[str]]:
    """Names that stand for one and the same tensor of the network."""
    names: dict[int, list[str]] = {}
    for name, tensor in wanted.items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _hint(
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    wanted: dict[str, Tensor],
    tensors: dict[str, Tensor],
) -> str:
    """What usually is behind such a difference, or nothing."""
    if shapes and not missing and not unexpected:
        heads = {(len(tensors[name]), len(wanted[name])) for name in shapes if wanted[name].dim()}
        same_rest = all(tensors[name].shape[1:] == wanted[name].shape[1:] for name in shapes)
        if len(heads) == 1 and len(shapes) <= 2 and same_rest:
            have, want = heads.pop()
            return f"; it looks like a head of {have} classes where the model has {want}: make it with {have}"
    for here, there, who in (
        (unexpected, missing, "the checkpoint's"),
        (missing, unexpected, "the model's"),
    ):
        prefix = here[0].removesuffix(there[0]) if here and there else ""
        if prefix and not shapes and here == [prefix + name for name in there]:
            return f"; {who} names have {prefix!r} before them: give the network that --model makes the same"
    return ""
