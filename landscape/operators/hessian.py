"""The Hessian of an objective at a point, as a symmetric operator that is never formed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from landscape.directions import generator
from landscape.objective import Objective
from landscape.operators.summed import LinearMap, PartsOperator, by_rows

MODES = ("auto", "reverse", "forward")


class HessianOperator(PartsOperator):
    """``v -> H v`` with ``H`` the Hessian of ``objective`` at ``theta``, every part weighted by its size.

    ``"reverse"`` differentiates the gradient once more (Pearlmutter 1994, by double backward); with the
    graph of the gradient kept, a product costs two gradients. ``"forward"`` pushes a tangent through
    the gradient: three gradients, no graph at all, so the least memory.

    Args:
        objective: any objective.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        mode: ``"reverse"``, ``"forward"``, or ``"auto"``: forward where ``keep_graph="auto"`` finds that not
            even one graph fits.
        options: see :class:`landscape.operators.summed.PartsOperator`.

    Raises:
        ValueError: an option out of range.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2))
    >>> hessian = HessianOperator(bowl)
    >>> (hessian @ torch.tensor([1.0, 1.0])).tolist(), hessian.products
    ([2.0, 4.0], 1)
    """

    kind = "hessian"

    def __init__(
        self,
        objective: Objective,
        theta: Tensor | None = None,
        *,
        mode: str = "auto",
        **options: Any,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}: expected one of {', '.join(MODES)}")
        if mode == "forward":
            options["keep_graph"] = False
        super().__init__(objective, theta, **options)
        self.mode = mode
        if any(part.products is not None for part in self._parts):
            self._kept = 0  # such a part has no graph that could be kept
            self.settings["terms_at_once"] = max(part.size for part in self._parts)
        self._gradients: dict[int, Tensor] = {}
        if mode == "forward":
            self._each, self._build = 3.0, 0.0

    def anew(self, objective: Objective | None = None) -> Self:
        """See :meth:`landscape.operators.summed.PartsOperator.anew`."""
        made = super().anew(objective)
        made._gradients = {}
        return made

    def start(self, seed: int = 0) -> Tensor | None:
        """A random mixture of the parts' gradients, ``(params,)``; ``None`` where it would cost extra.

        Gradients of batches lie near the eigenvectors of large eigenvalues, and where graphs are kept
        they are by-products: a Krylov space that starts with them needs fewer products.
        """
        short = torch.tensor(float(self.kept < len(self._mine) or self.mode == "forward"))
        if float(self.team.sum(short)):  # all processes must take part, or none
            return None
        total = torch.zeros_like(self.theta)
        for i in self._mine:
            with self._kernels(i):
                self._map(i)
            sign = float(generator(seed, "start", i).integers(0, 2) * 2 - 1)
            total += sign * self._gradients[i]
        return self.team.sum(total)

    def _measure(self) -> None:
        super()._measure()
        own = any(part.products is not None for part in self._parts)
        if self.mode == "auto" and self._mine and not self._kept and not own:
            self.mode = self.settings["mode"] = "forward"
            self._each, self._build = 3.0, 0.0

    def _linearize(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        if self._parts[i].products is not None:
            return self._own_products(i, tensors)
        if self.mode == "forward":
            return self._forward(i, tensors)
        leaves = [tensors[name] for name in self.space.names]
        with torch.enable_grad():
            total = self._parts[i].total(tensors)
            found: Sequence[Tensor | None] = [None] * len(leaves)
            if total.requires_grad:  # else the loss does not depend on these parameters at all
                found = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        zeros = [
            g if g is not None else torch.zeros_like(p) for g, p in zip(found, leaves, strict=True)
        ]
        self._gradients[i] = torch.cat([g.detach().reshape(-1) for g in zeros])
        # What depends linearly on a parameter has no second derivative there, and no graph.
        live = [j for j, g in enumerate(found) if g is not None and g.requires_grad]
        heads = [g for g in found if g is not None and g.requires_grad]
        self._heads = heads
        if not live:
            return lambda vectors, again: torch.zeros_like(vectors)

        def product(pieces: list[Tensor], again: bool, batched: bool) -> Sequence[Tensor | None]:
            return torch.autograd.grad(
                heads,
                leaves,
                [pieces[j] for j in live],
                retain_graph=again,
                allow_unused=True,
                is_grads_batched=batched,
            )

        return by_rows(self.space, self.chunk, product)

    def _own_products(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        products, space = self._parts[i].products, self.space
        assert products is not None
        point = {name: tensor.detach() for name, tensor in tensors.items()}

        def rows(vectors: Tensor, again: bool) -> Tensor:
            pieces = zip(space.names, self._spans, space.shapes, strict=True)
            made = products(
                point, {n: vectors[:, a:b].reshape(-1, *shape) for n, (a, b), shape in pieces}
            )
            return torch.cat([made[name].reshape(len(vectors), -1) for name in space.names], 1)

        return rows

    def _forward(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        point = {name: tensors[name].detach() for name in self.space.names}
        part, fixed = self._parts[i], self._fixed

        def total(own: dict[str, Tensor]) -> Tensor:
            return part.total({**fixed, **own})

        def product(v: Tensor) -> Tensor:
            made: Any = jvp(grad(total), (point,), (self.space.unflatten(v),))
            return self.space.join(made[1])

        def rows(vectors: Tensor, again: bool) -> Tensor:
            if self.chunk == 1:
                return torch.stack([product(v) for v in vectors])
            return vmap(product, chunk_size=self.chunk, randomness="error")(vectors)

        return rows
