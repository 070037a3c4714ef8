"""Measures of single layers, and the Fisher-Rao norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.directions import generator
from landscape.operators import operator_of
from landscape.operators.summed import PartsOperator
from landscape.sharpness.curvature import TOP, top
from landscape.sharpness.gradient import slopes
from landscape.sharpness.head import Head, direct_forms, head_of, root, signs
from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.noise import over_parts
from landscape.sharpness.point import Point, measured
from landscape.sharpness.probes import deflated_blocks, probed
from landscape.sharpness.skewness import corrected
from landscape.spectra.layers import literal

_BLOCK = 8  # draws that go through the data together


@measured
def fisher_rao(point: Point) -> Measurement:
    """Fisher-Rao norm, with the labels of the data: how much the loss of each example moves with ``w``.

    ``wᵀF w = (1/n) Σ (wᵀ∇ℓᵢ)²``

    Liang et al. 2019, definition 2, in its empirical form; their code reports the square root. For a
    network of ``ℓ`` layers without biases, homogeneous in each, it is ``ℓ² E(⟨∂ℓoss/∂f, f⟩²)``. Invariant to
    rescalings of layers and neurons that leave the function unchanged. One derivative along ``w``; the
    error is that of the mean over the examples (tasks), whose squares have a long tail: the interval allows
    for their skewness (:func:`landscape.sharpness.skewness.corrected`).

    Raises:
        NotApplicable: the loss has no terms, or forward mode fails and there are many.

    >>> from landscape.objective import FunctionObjective
    >>> line = FunctionObjective(lambda t: (2 * t).sum(), torch.tensor([3.0, 1.0]).double())
    >>> fisher_rao(Point(line)).value  # one term, of slope 8 along w
    64.0
    """
    squares = slopes(point, point.theta).square()
    return corrected(estimate("fisher_rao", float(squares.mean()), point.influence(squares), {}))


@measured
def minimum_sharpness(
    point: Point, probes: int = 16, tol: float = 1e-3, k: int = TOP
) -> Measurement:
    """Trace of the Hessian after the layers were rescaled so that it is smallest.

    ``min over Πα = 1 of Σ tr(H_l)/α_l² = ℓ (Π tr H_l)^(1/ℓ)``

    Ibayashi et al. 2021, with the closed form instead of their search. The layers are the weight tensors
    of two or more dimensions (of an objective without any, all tensors); biases and norms are left out.
    Invariant to a rescaling of whole layers, not to one of single neurons. The traces come from the
    products of :func:`landscape.sharpness.curvature.trace`, and beside it a product for each eigenpair, from
    which its error over the data is known (a formula needs none). To first order
    the value ``m`` moves by ``(m/ℓ) Σ_l δ tr H_l / tr H_l``, with the probes and with the parts of the data (batches,
    tasks).

    Args:
        point: the point.
        probes: products to spend.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        NotApplicable: the trace of a layer is not positive.
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(minimum_sharpness(Point(bowl)).value, 6)  # one layer: its trace
    12.0
    """
    pairs = top(point, k, tol)
    found = probed(point, point.hessian, pairs, probes, "hessian")
    space = point.objective.space
    rows = list(enumerate(zip(space.names, space.shapes, space.roles, strict=True)))
    chosen = [i for i, (_, shape, role) in rows if role == "weight" and len(shape) > 1]
    chosen = chosen or [i for i, _ in rows]
    traces = found.blocks[:, chosen].mean(0)
    settings = {
        "probes": probes, "tol": tol, "deflated": found.deflated, "layers": len(chosen),
    }  # fmt: skip
    low = int(traces.argmin())
    if not float(traces[low]) > 0:
        raise NotApplicable(
            f"the trace of the block of {space.names[chosen[low]]} is {float(traces[low]):.3g}: "
            "rescaling the layers has no minimum unless all are positive"
        )
    value = len(chosen) * math.exp(float(traces.log().mean()))
    draws = None if found.exact else value * (found.blocks[:, chosen] / traces).mean(1)
    parts = None
    deflated = None if point.of == "exact" else deflated_blocks(point, point.hessian, pairs)
    if deflated is not None and found.block_parts is not None:
        parts = value * ((deflated + found.block_parts)[:, chosen] / traces).mean(1)
    influence = over_parts(point, parts, draws)
    known = influence.data_error() is not None
    note = "" if known else "error over the random probes, not over the data"
    if not found.exact:
        errors = found.blocks[:, chosen].std(0) / math.sqrt(len(found.blocks))
        weakest = int((traces / errors).argmin())
        if float(traces[weakest]) < 2 * float(errors[weakest]):
            note = f"unsure: the trace of {space.names[chosen[weakest]]} may be 0; raise probes"
    return estimate("minimum_sharpness", value, influence, settings, note=note)


@measured
def relative_flatness(point: Point, draws: int = 64, scaled: bool = True) -> Measurement:
    """Relative flatness of the head, the last linear layer with the weight ``W``, rows ``w_s``.

    ``κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{s,s'}``

    Petzka et al. 2021, definition 3, for the layer that they recommend. With ``scaled`` its inputs count in
    units of their standard deviations over the data, as the paper asks (one of their scripts divides by
    the variance); weights are not changed. Invariant to a rescaling of whole layers, with ``scaled`` of
    single neurons before the head too.

    Where the layer's output is that of the network, the Hessian of its block is that of the loss in the
    outputs times ``xxᵀ``: then ``κ = (1/n) Σ ‖xᵢ‖² tr(W Wᵀ ∇²ℓᵢ)`` for the price of a forward pass, exactly
    if there are at most ``draws`` outputs, with an error over the examples. Elsewhere
    ``κ = E[vec(V)ᵀ H vec(V)]``, ``V = W R`` with random signs ``R``: a product with the block of the head each,
    which is counted as one of the whole network and costs less. The error includes that the standard
    deviations come from the same data.

    Args:
        point: the point.
        draws: random draws, at least 2.
        scaled: inputs in units of their standard deviation.

    Raises:
        NotApplicable: there is no linear layer, or its weight is frozen or used twice.
        ValueError: fewer than two draws.

    >>> from landscape.data_objective import DataObjective
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> _ = torch.nn.init.constant_(model.weight, 3.0)
    >>> data = (torch.eye(2).double(), torch.zeros(2, 1).double())
    >>> least_squares = DataObjective(model, data, loss="mse_loss")
    >>> round(relative_flatness(Point(least_squares), scaled=False).value, 6)  # ‖W‖² · (2/n) ‖X‖²
    36.0
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}: expected at least 2 for an error estimate")
    head = head_of(point)
    weight = point.objective.space.unflatten(point.theta)[head.name].double()
    spreads = torch.ones_like(weight[0])
    note = ""
    if scaled and head.spreads is None:
        scaled, note = False, "the inputs of the head are not known, so not scaled; "
    elif scaled and head.spreads is not None:
        spreads = head.spreads.to(weight)
    factor = weight * spreads
    if len(weight) < weight.shape[1]:
        factor = root(factor @ factor.T)  # the same covariance with fewer columns
    settings = {"draws": draws, "scaled": scaled, "head": head.name}
    found = _direct(point, head, weight, factor, spreads, draws) if head.outputs else None
    if found is None:
        parts, samples, slope = _by_products(point, head, weight, factor, spreads, draws)
        if scaled and head.scatter is not None and len(head.scatter) == len(parts) > 1:
            weights = point.hessian.weights  # type: ignore[attr-defined]  # operators of parts
            parts = parts + _scatter_of_parts(head, weights) @ slope.cpu()
        influence = over_parts(point, parts, samples)
        note += "the cost counts products of the whole network, those of the head take less"
        value = float(samples.mean())
        return estimate("relative_flatness", value, influence, settings, note=note)
    terms, sampled, slope = found
    value = float(terms.mean())
    if scaled:
        terms = terms + _scatter(head, spreads, slope)
    influence = point.influence(terms, sampled)
    return estimate("relative_flatness", value, influence, settings)


def _direct(
    point: Point, head: Head, weight: Tensor, factor: Tensor, spreads: Tensor, draws: int
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """The forms by examples, those by draws if any, and ``∂κ/∂ log s²`` ``(inputs,)``.

    Of the columns of the factor, or of random mixtures of them.
    """
    mixes = torch.eye(factor.shape[1]).to(factor)
    drawn = len(mixes) > draws
    if drawn:
        made = signs((draws, len(mixes)), generator(point.seed, "relative_flatness"))
        mixes = made.to(factor)
    share = 1 / draws if drawn else 1.0
    lengths = [(x.double() / spreads).square().sum(1) for x in head.inputs]
    found = direct_forms(point, head, mixes @ factor.T, lengths)
    if found is None:
        return None
    each = share * found[0].sum(0)
    lost = torch.zeros_like(spreads)
    for x, piece in zip(head.inputs, torch.split(each, [len(x) for x in head.inputs]), strict=True):
        lost += piece @ (x.double() / spreads).square() / len(each)
    slope = _gained(weight * spreads, factor, share * found[1].T @ mixes) - lost
    terms = found[0] * torch.cat(lengths)
    return share * terms.sum(0), terms.mean(1) if drawn else None, slope


def _by_products(
    point: Point, head: Head, weight: Tensor, factor: Tensor, spreads: Tensor, draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The forms of the parts ``(parts,)``, means over the draws; of the draws; and ``∂κ/∂ log s²``."""
    block = operator_of(point.objective, point.theta, params=[literal(head.name)], check=False)
    assert isinstance(block, PartsOperator)
    found, sums = [], torch.zeros(block.parts, dtype=torch.float64)
    lost, through = torch.zeros_like(spreads), torch.zeros_like(factor)
    with point.products(block):
        for first in range(0, draws, _BLOCK):
            mixes, rows = [], []
            for i in range(first, min(first + _BLOCK, draws)):
                drawn = generator(point.seed, "relative_flatness", i)
                mixes.append(signs((factor.shape[1], len(spreads)), drawn).to(factor))
                rows.append((factor @ mixes[-1] / spreads).reshape(-1))
            vectors = torch.stack(rows).to(block.theta)
            whole = torch.zeros(len(rows), dtype=torch.float64)

            def note(part: int, share: float, images: Tensor, v=vectors, whole=whole) -> None:  # type: ignore[no-untyped-def]
                each = (v.double() * images.double()).sum(1).cpu()
                sums[part] += each.sum()
                whole += share * each

            with block.watching(note):
                made = block.rows(vectors)
            found.append(block.team.sum(whole))
            for mix, row, image in zip(mixes, rows, made.to(factor), strict=True):
                lost += (row * image).view_as(weight).sum(0)
                through += image.view_as(weight) / spreads @ mix.T
    slope = (_gained(weight * spreads, factor, through) - lost) / draws
    return block.team.sum(sums) / draws, torch.cat(found), slope


def _gained(scaled: Tensor, factor: Tensor, through: Tensor) -> Tensor:
    """``w_jᵀ M w_j`` of the columns of ``scaled``, from ``M F`` of a factor with ``F Fᵀ = W Wᵀ``: ``(inputs,)``.

    ``κ`` is the sum of these, and equally of what the squares of each input add: the columns grow with the
    spread of their input, its squares in units of it shrink, and the difference is the derivative.
    """
    mix: Tensor = torch.linalg.pinv(factor) @ scaled
    return (scaled * (through @ mix)).sum(0)


def _scatter(head: Head, spreads: Tensor, slope: Tensor) -> Tensor:
    """How the squared spreads move ``κ`` with every example, ``((x - mean) / spread)² · slope``: ``(examples,)``."""
    assert head.mean is not None
    return torch.cat([((x.double() - head.mean) / spreads).square() @ slope for x in head.inputs])


def _scatter_of_parts(head: Head, weights: Tensor) -> Tensor:
    """Relative moves of the squared spreads with each part ``(parts, inputs)``.

    A part counts by its ``rows``, which are not its weight where sequences have lengths of their own.
    """
    assert head.rows is not None and head.scatter is not None
    shares = head.rows / head.rows.sum() / weights
    return shares[:, None] * (head.scatter.cpu() - 1)
