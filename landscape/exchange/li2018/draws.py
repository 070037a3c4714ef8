"""The reference's random directions: its order of draws, and its normalization rules by their names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landscape.exchange.li2018.entries import combined, entries
from landscape.exchange.li2018.plane import ReferencePlane
from landscape.objective import Objective

RULES = ("filter", "layer", "weight", "dfilter", "dlayer", "")
"""Names of the reference; the empty one leaves tensors as drawn."""

_EPSILON = 1e-10


def draw_directions(
    objective: Objective,
    generator: torch.Generator,
    normalize: str = "filter",
    ignore: str = "biasbn",
    axes: int = 2,
    mode: str = "weights",
) -> ReferencePlane:
    """Directions as loss-landscape draws them, to the bit where torch's generator gives the same numbers.

    All tensors of the first direction are drawn in order as float32 standard normals, the first is
    normalized, then the second. With ``d`` what was drawn and ``w`` the weights, tensors of two dimensions
    or more become

    ===========  ======================================================
    ``filter``   ``d_i * ||w_i|| / (||d_i|| + 1e-10)``, each slice of dimension 0
    ``layer``    ``d * ||w|| / ||d||``
    ``weight``   ``d * w``
    ``dfilter``  ``d_i / (||d_i|| + 1e-10)``
    ``dlayer``   ``d / ||d||``
    (empty)      ``d``
    ===========  ======================================================

    Tensors of fewer dimensions stay fixed with ``ignore="biasbn"``; otherwise the direction *is* ``w``, on
    both axes.

    The reference seeds the one global generator with 123 *before it builds the network*, so its directions
    depend on how many numbers the initializers took. To draw the same ones::

        torch.manual_seed(123)
        model = build()                       # as it does, initializers and all
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        model.load_state_dict(weights)

    Args:
        objective: gives tensors and weights.
        generator: of torch, on the CPU; it moves on.
        normalize: one of :data:`RULES`.
        ignore: ``"biasbn"`` or ``""``.
        axes: 1 or 2.
        mode: ``"weights"``, or ``"states"`` with the buffers among the tensors.

    Raises:
        ValueError: an unknown name, or buffers that would move and that the objective keeps fixed.
    """
    if normalize not in RULES:
        known = ", ".join(rule or "'' (as drawn)" for rule in RULES)
        raise ValueError(f"unknown rule normalize={normalize!r}: expected one of {known}")
    if ignore not in ("biasbn", ""):
        raise ValueError(f"ignore is {ignore!r}: expected 'biasbn' or ''")
    if axes not in (1, 2):
        raise ValueError(f"axes is {axes}: expected 1 (a line) or 2 (a plane)")
    found = entries(objective, mode)
    weights = {name: tensor.cpu().float() for name, tensor in found.tensors.items()}
    rows = []
    for _ in range(axes):
        drawn = {
            name: torch.randn(w.shape, generator=generator, dtype=torch.float32)
            for name, w in weights.items()
        }
        rows.append(
            {name: _scaled(drawn[name], w, normalize, ignore) for name, w in weights.items()}
        )
    basis, buffers = combined(objective, found, rows)
    settings = {
        "kind": "random",
        "conventions": "li2018",
        "normalize": normalize or "none",
        "ignore": ["bias", "norm"] if ignore else [],
        "one_dimensional": "fixed" if ignore else "weights",
        "axes": axes,
        "mode": mode,
    }
    return ReferencePlane(objective.theta.detach().clone(), basis, settings, buffers)


def _scaled(d: Tensor, w: Tensor, rule: str, ignore: str) -> Tensor:
    if d.dim() <= 1:
        return torch.zeros_like(d) if ignore else w.clone()
    # Slice by slice: norms over a whole tensor at once may differ in the last bit.
    if rule == "filter":
        scaled = [x * (y.norm() / (x.norm() + _EPSILON)) for x, y in zip(d, w, strict=True)]
        return torch.stack(scaled)
    if rule == "dfilter":
        return torch.stack([x / (x.norm() + _EPSILON) for x in d])
    whole: dict[str, Callable[[], Tensor]] = {
        "layer": lambda: d * (w.norm() / d.norm()),
        "dlayer": lambda: d / d.norm(),
        "weight": lambda: d * w,
        "": lambda: d,
    }
    return whole[rule]()
