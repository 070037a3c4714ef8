"""Positive semidefinite curvatures made of Jacobians: the Gauss-Newton matrix and the empirical Fisher."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.operators.summed import LinearMap, PartsOperator, by_rows
from landscape.parts import Part

Pieces = Sequence[Tensor | None]
Curvature = Callable[[Sequence[Tensor], bool, bool], Pieces]
"""``(tangents of the outputs, whether the graph is used again, whether they are batched) -> cotangents``."""


class JacobianOperator(PartsOperator):
    """``v -> Σ Jᵀ C J v / N`` with ``J`` the Jacobian of some outputs: what GGN and Fisher share.

    ``J v`` comes from two backward passes: ``Jᵀ u`` is linear in ``u``, and its derivative there is ``J``.
    A product costs 4/3 FB on kept graphs (a backward pass is 2/3), and 7/3 without. Options are those of
    :class:`landscape.operators.summed.PartsOperator`.
    """

    _each = 4 / 3

    def _linearize(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        if self._parts[i].products is not None:
            raise ValueError(
                f"{type(self.objective).__name__} takes {self._parts[i].size} terms at once in a way that "
                f"only has Hessians; take them one at a time (tasks_at_once=1) for the {self.kind!r}"
            )
        leaves = [tensors[name] for name in self.space.names]
        with torch.enable_grad():
            outputs, curvature = self._outputs(self._parts[i], tensors)
            if not outputs:  # nothing that the loss bends in depends on these parameters
                return lambda vectors, again: torch.zeros_like(vectors)
            probes = [torch.zeros_like(output, requires_grad=True) for output in outputs]
            found = torch.autograd.grad(
                outputs, leaves, probes, create_graph=True, allow_unused=True
            )
        live = [j for j, w in enumerate(found) if w is not None]
        pulled = [found[j] for j in live]
        self._heads = [*pulled, *outputs]

        def product(pieces: list[Tensor], again: bool, batched: bool) -> Pieces:
            tangents = _pull(pulled, probes, [pieces[j] for j in live], again, batched)
            bent = curvature(_zeros(tangents, probes, pieces, batched), again, batched)
            cotangents = _zeros(bent, probes, pieces, batched)
            return _pull(outputs, leaves, cotangents, again, batched)

        return by_rows(self.space, self.chunk, product)

    @abstractmethod
    def _outputs(self, part: Part, tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], Curvature]:
        """What is differentiated by the parameters, and the product of ``C`` with tangents of it."""


class GGNOperator(JacobianOperator):
    """``v -> G v`` with ``G = 1/N Σᵢ Jᵢᵀ (∇²ℓᵢ) Jᵢ``, the generalized Gauss-Newton matrix (Schraudolph 2002).

    ``Jᵢ`` is the Jacobian of the network's output on example ``i`` and ``∇²ℓᵢ`` the Hessian of its loss by
    that output, with the scale that the loss has: the mean over examples, and for ``"mse_loss"`` over the
    entries of an output too, so ``2 / entries · JᵀJ``. It is the Hessian less the curvature of the
    network; for cross-entropy it is the Fisher matrix of the model's own distribution. It is positive
    semidefinite where the loss is convex in the output. All floating-point tensors of an output (in
    tuples, mappings and objects such as those with ``logits``) are one output together.

    Raises:
        ValueError: at the first product, for an objective that does not tell output and loss apart, and for
            complex outputs.

    >>> from landscape.data_objective import DataObjective
    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> data = DataObjective(line, (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)), "mse_loss")
    >>> (GGNOperator(data) @ torch.ones(1)).tolist()  # 2 · mean of x²
    [10.0]
    """

    kind = "ggn"

    def _outputs(self, part: Part, tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], Curvature]:
        if part.output is None or part.loss_of is None:
            raise ValueError(
                f"{type(self.objective).__name__} does not tell a network's output and its loss apart, so "
                "it has no GGN; pass a DataObjective, or choose the 'hessian' or the 'fisher'"
            )
        outputs: list[Tensor] = []
        free: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            if tensor.is_complex() and tensor.requires_grad:
                raise ValueError(
                    "the network's output is complex, and has no GGN; return its real and imaginary parts "
                    "(torch.view_as_real), or choose the 'hessian' or the 'fisher'"
                )
            if not (tensor.is_floating_point() and tensor.requires_grad):
                return tensor
            # Free of what it was computed from: one output may be a function of another.
            outputs.append(tensor)
            free.append(tensor.detach().requires_grad_())
            return free[-1]

        loss = part.loss_of(with_tensors(part.output(tensors), note))
        loss = loss * part.size if loss.dim() == 0 else loss.sum()
        slopes: Pieces = [None] * len(free)
        if loss.requires_grad:
            slopes = torch.autograd.grad(loss, free, create_graph=True, allow_unused=True)
        bends = [j for j, s in enumerate(slopes) if s is not None and s.requires_grad]
        heads = [s for s in slopes if s is not None and s.requires_grad]
        outputs, free = [outputs[j] for j in bends], [free[j] for j in bends]

        def curvature(tangents: Sequence[Tensor], again: bool, batched: bool) -> Pieces:
            return _pull(heads, free, tangents, again, batched)

        return outputs, curvature


class FisherOperator(JacobianOperator):
    """``v -> F v`` with ``F = 1/N Σᵢ gᵢ gᵢᵀ``, the empirical Fisher matrix, of the gradient of each term.

    Not centred: at a point with gradient ``g`` it holds ``g gᵀ`` too (the covariance of the gradients is
    ``F - g gᵀ``). ``gᵢ`` is the gradient of the loss of one example, or task, as the loss gives it: where
    an example has several outputs, of their mean. It is not the Fisher matrix of the model's distribution
    unless the labels are drawn from it (Kunstner et al. 2019).

    Raises:
        ValueError: at the first product, for a loss that returns one scalar a batch.

    >>> from landscape.data_objective import DataObjective
    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(line.weight)
    >>> data = DataObjective(line, (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)), "mse_loss")
    >>> (FisherOperator(data) @ torch.ones(1)).tolist()  # mean of (2 x²)² at the weight 1
    [164.0]
    """

    kind = "fisher"

    def _outputs(self, part: Part, tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], Curvature]:
        losses = part.losses(tensors)
        if losses.dim() == 0 and part.size > 1:
            raise ValueError(
                f"the loss returns one scalar for {part.size} examples; the empirical Fisher needs one loss an "
                "example: use reduction='none', or choose the 'ggn'"
            )
        return [losses] if losses.requires_grad else [], lambda tangents, again, batched: tangents


def with_tensors(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same output with ``function`` of every tensor in it, in a copy of the same type.

    Tuples, lists, mappings and objects that keep tensors in attributes are copied; anything else that is
    no tensor stays. A tensor that is there twice is replaced once.
    """
    return _replaced(tree, function, {})


def _replaced(tree: Any, function: Callable[[Tensor], Tensor], made: dict[int, Any]) -> Any:
    if id(tree) in made:
        return made[id(tree)]
    result = tree
    if isinstance(tree, Tensor):
        result = function(tree)
    elif isinstance(tree, tuple | list):
        items = [_replaced(value, function, made) for value in tree]
        result = type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    elif isinstance(tree, MutableMapping):
        made[id(tree)] = result = copy.copy(tree)  # of its type: losses read attributes too
        for name, value in tree.items():
            result[name] = _replaced(value, function, made)
    elif hasattr(tree, "__dict__") and not callable(tree):
        made[id(tree)] = result = copy.copy(tree)
        for name, value in vars(tree).items():
            object.__setattr__(result, name, _replaced(value, function, made))  # frozen ones too
    made[id(tree)] = result
    return result


def _pull(
    heads: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    again: bool,
    batched: bool,
) -> Pieces:
    return torch.autograd.grad(
        heads, inputs, cotangents, retain_graph=again, allow_unused=True, is_grads_batched=batched
    )


def _zeros(pieces: Pieces, like: Sequence[Tensor], rows: Pieces, batched: bool) -> list[Tensor]:
    """``pieces`` with zeros for those that are ``None``."""
    lead = rows[0].shape[:1] if batched and rows[0] is not None else ()
    return [
        p if p is not None else t.new_zeros(*lead, *t.shape)
        for p, t in zip(pieces, like, strict=True)
    ]
