"""Operators that are weighted sums over the parts of an objective: batches, or tasks."""

from __future__ import annotations

import copy
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from landscape import device as devices
from landscape.objective import Objective
from landscape.operators.symmetric import SymmetricOperator, select
from landscape.parallel import Team, local_ranks
from landscape.parts import InParts, Part
from landscape.space import ParameterSpace

LinearMap = Callable[[Tensor, bool], Tensor]
"""``(vectors (count, params), whether it is used again) -> size * A_part v`` for each row."""
Watch = Callable[[int, float, Tensor], None]

KEEP = (True, False, "auto")
_SHARE = 0.5  # of the free memory that kept graphs may fill


class PartsOperator(SymmetricOperator):
    """``A = Σ sizeᵢ Aᵢ / Σ sizeᵢ``, part by part, the graph of each part kept between products or not.

    Args:
        objective: an objective that can be taken apart (:class:`landscape.parts.InParts`).
        theta: the point, all parameters ``(params,)``; ``objective.theta`` when left out.
        params: which parameters the operator acts on, as patterns (:func:`landscape.operators.symmetric.select`);
            the others are held constant. All when left out.
        keep_graph: ``True`` keeps each part's graph: two FB a product, not three, for the memory of
            those graphs; ``False`` builds it anew each time; ``"auto"`` keeps as many as half of the
            free memory holds, by the bytes that the first one is seen to save.
        subset: numbers of the parts to use; all when left out.
        team: processes that share the parts, with one exchange a product.
        chunk: vectors that go through a graph at a time; left out, 1 on the CPU, where a loop is as
            fast, and 8 on a GPU.

    Attributes:
        weights: share of each part in the mean, float64 ``(parts,)``.
        cost: FB spent so far by this process' own count: products, and graphs that were built.
        watch: called as ``watch(part, weight, images (count, params))`` with what each part
            contributes to a product, before they are summed.

    Raises:
        ValueError: theta of another shape, an unknown ``keep_graph``, a pattern that matches nothing.
    """

    _each = 2.0  # FB of a product once the graph is there
    _build = 1.0  # FB of the graph

    def __init__(
        self,
        objective: Objective,
        theta: Tensor | None = None,
        *,
        params: str | Sequence[str] | None = None,
        keep_graph: bool | str = "auto",
        subset: Sequence[int] | None = None,
        team: Team | None = None,
        chunk: int | None = None,
    ) -> None:
        whole = (objective.theta if theta is None else theta).detach()
        if tuple(whole.shape) != (objective.space.size,):
            raise ValueError(
                f"theta has shape {tuple(whole.shape)}, expected ({objective.space.size},)"
            )
        if keep_graph not in KEEP:
            raise ValueError(f"keep_graph is {keep_graph!r}: expected True, False or 'auto'")
        names = select(objective.space, params)
        space = objective.space.only(names)
        tensors = objective.space.unflatten(whole)
        super().__init__(torch.cat([tensors[name].reshape(-1) for name in names]), space)
        self.objective = objective
        self.whole = whole
        self._fixed = {name: t for name, t in tensors.items() if name not in names}
        parts = parts_of(objective)
        numbers = range(len(parts)) if subset is None else list(subset)
        if not numbers or not all(0 <= i < len(parts) for i in numbers):
            raise ValueError(f"subset {list(numbers)}: expected some of the {len(parts)} parts")
        self._numbers = numbers
        self._parts = [parts[i] for i in numbers]
        sizes = torch.tensor([part.size for part in self._parts], dtype=torch.float64)
        self.examples = int(sizes.sum())
        self.weights = sizes / sizes.sum()
        self.team = team or Team()
        self._mine = self.team.mine(list(range(len(self._parts))))
        self.watch: Watch | None = None
        self.chunk = chunk or (8 if whole.is_cuda else 1)
        ends = np.cumsum([0, *space.sizes]).tolist()
        self._spans = list(itertools.pairwise(ends))
        self._maps: dict[int, LinearMap] = {}
        self._heads: Sequence[Tensor] = ()  # of the graph that was built last
        self._kept = None if keep_graph == "auto" else len(self._mine) * bool(keep_graph)
        if params is not None:
            self.settings["params"] = params if isinstance(params, str) else ",".join(params)
        if subset is not None:
            self.settings["parts"] = f"{len(self._parts)} of {len(parts)}"

    @property
    def kept(self) -> int:
        """Number of this process' parts, from the first on, whose graphs stay in memory."""
        if self._kept is None:
            self._measure()
        return self._kept or 0

    @property
    def product_cost(self) -> float:
        """FB of one product: for a Hessian two with a kept graph, three without."""
        return self._each + self._build * (1 - self.kept / max(len(self._mine), 1))

    @property
    def parts(self) -> int:
        """Number of parts in all."""
        return len(self._parts)

    def quotients(self, vectors: Tensor) -> Tensor:
        """``vᵀ Aᵢ v`` of each part for unit rows ``vectors (count, params)``: ``(parts, count)``, float64.

        One pass over the data, counted as products.
        """
        found = torch.zeros(len(self._parts), len(vectors), dtype=torch.float64)

        def note(part: int, weight: float, images: Tensor) -> None:
            found[part] = (images.double() * vectors.double()).sum(1).cpu()

        with self.watching(note):
            self.rows(vectors)
        return self.team.sum(found)

    @property
    def has_gradient(self) -> bool:
        """Whether :meth:`gradient` can be computed: parts with products of their own are all or nothing."""
        own = any(part.products is not None for part in self._parts)
        return not own or "parts" not in self.settings

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """Gradient of the objective over these parts, ``(params,)``, with other coordinates if given.

        Args:
            theta: values of the coordinates that the operator acts on, ``(params,)``.

        Raises:
            ValueError: some only of the parts, and parts that are not differentiated from outside.
        """
        if not self.has_gradient:
            raise ValueError("no gradient of a subset of parts that have products of their own")
        if any(part.products is not None for part in self._parts):
            return self._gradient_of_all(self.theta if theta is None else theta)
        own = self.space.unflatten(self.theta if theta is None else theta)
        total = torch.zeros_like(self.theta)
        for i in self._mine:
            leaves = {name: piece.detach().requires_grad_() for name, piece in own.items()}
            with self._kernels(i), torch.enable_grad():
                loss = self._parts[i].total({**self._fixed, **leaves})
                if loss.requires_grad:
                    wanted = list(leaves.values())
                    pieces = torch.autograd.grad(
                        loss, wanted, allow_unused=True, materialize_grads=True
                    )
                    total += torch.cat([piece.reshape(-1) for piece in pieces])
            self.cost += float(self.weights[i])
        return self.team.sum(total) / self.examples

    def _gradient_of_all(self, theta: Tensor) -> Tensor:
        own = self.space.unflatten(theta.detach())
        whole = self.objective.space.flatten({**self._fixed, **own})
        self.cost += 1.0
        found = self.objective.space.unflatten(self.objective.gradient(whole))
        return self.space.flatten(found)

    def anew(self, objective: Objective | None = None) -> Self:
        """The same operator with nothing kept, or that of another objective over the same space.

        It keeps no graphs, and counts its own products and cost from zero.
        """
        made = copy.copy(self)
        made._maps, made._kept, made.watch = {}, 0, None
        made.products, made.cost, made._replayed = 0, 0.0, False
        made.settings = dict(self.settings)
        if objective is not None:
            made.objective = objective
            made._parts = [parts_of(objective)[i] for i in self._numbers]
            made.whole = self.whole.to(objective.theta)
            made.theta = self.theta.to(objective.theta)
            made._fixed = {name: t.to(objective.theta) for name, t in self._fixed.items()}
        return made

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Call ``watch`` with every part's share of the products made inside."""
        earlier, self.watch = self.watch, watch
        try:
            yield
        finally:
            self.watch = earlier

    def release(self) -> None:
        """Give back the memory of the graphs that are kept; later products build them again."""
        self._maps.clear()

    def _recorded(self, vectors: Tensor) -> Tensor:
        # What is watched is the parts' shares, which are not kept.
        return super()._recorded(vectors) if self.watch is None else self._products(vectors)

    def _products(self, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for i in self._mine:
            with self._kernels(i):
                apply = self._map(i)
                images = apply(vectors, i in self._maps)
            self.cost += self._each * len(vectors) * float(self.weights[i])
            if self.watch is not None:
                self.watch(i, float(self.weights[i]), images / self._parts[i].size)
            total += images
        return self.team.sum(total) / self.examples

    def _map(self, i: int) -> LinearMap:
        """The linear map of part ``i``: the kept one, or one that is built now."""
        keep = self._mine.index(i) < self.kept  # may build the first one
        if i in self._maps:
            return self._maps[i]
        if not (keep and self._replayed):
            self.cost += self._build * float(self.weights[i])
        made = self._linearize(i, self._leaves())
        self._heads = ()  # a graph that is not kept ends with its map
        if keep:
            self._maps[i] = made
        return made

    def _measure(self) -> None:
        """Decide how many graphs to keep, by the bytes that the graph of the first part saves."""
        self._kept = 0
        if not self._mine:
            return
        first = self._mine[0]
        made: LinearMap | None = None
        taken: float = math.inf
        with self._kernels(first):
            try:
                with saved_bytes() as saved:
                    made = self._linearize(first, self._leaves())
                taken = saved()
            except torch.OutOfMemoryError:  # not even one: none is kept
                pass
            except RuntimeError as error:
                if "saved tensor hooks" not in str(error):
                    raise
                # A part that uses torch.func itself, such as an inner loop: no hooks are allowed there.
                made = self._linearize(first, self._leaves())
                taken = graph_bytes(self._heads)
                self._heads = ()
        self.cost += self._build * float(self.weights[first])
        each = taken / self._parts[first].size
        room = _SHARE * devices.free_memory(self.device)
        if self.device.type == "cpu":
            room /= local_ranks()
        for i in self._mine:
            room -= each * self._parts[i].size
            self._kept += room >= 0
        if self._kept and made is not None:
            self._maps[first] = made
        self.settings["kept_graphs"] = f"{self._kept} of {len(self._mine)}"

    @contextmanager
    def _kernels(self, i: int) -> Iterator[None]:
        with devices.exact_kernels(), self._parts[i].kernels():
            yield

    def _leaves(self) -> dict[str, Tensor]:
        """The parameters by name; those that the operator acts on ask for gradients."""
        own = self.space.unflatten(self.theta)
        leaves = {name: piece.detach().requires_grad_() for name, piece in own.items()}
        return {**self._fixed, **leaves}

    @abstractmethod
    def _linearize(self, i: int, tensors: dict[str, Tensor]) -> LinearMap:
        """The linear map ``v -> size * Aᵢ v`` of part ``i`` at ``tensors``."""


def parts_of(objective: Objective) -> Sequence[Part]:
    """The parts of an objective; one that cannot be taken apart is a single part."""
    if isinstance(objective, InParts):
        return objective.parts()
    join = objective.space.join
    return [Part(1, lambda tensors: objective.value(join(tensors)))]


Product = Callable[[list[Tensor], bool, bool], Sequence[Tensor | None]]
"""``(pieces of a vector, whether the graph is used again, whether the pieces are batched) -> pieces``."""


def by_rows(space: ParameterSpace, chunk: int, product: Product) -> LinearMap:
    """A linear map of rows, ``chunk`` at a time, from one of a vector in pieces.

    A piece of the product that is ``None`` is zero. With ``chunk`` above 1 all pieces, those of a vector and
    those of its product, have one more dimension, the first. Where torch cannot do several at a time (its group
    norm, differentiated twice), they go one by one.
    """
    together: bool | None = None  # not known before the first product

    def one_by_one(vectors: Tensor, again: bool) -> Tensor:
        images = torch.zeros_like(vectors)
        for row, (v, image) in enumerate(zip(vectors, images, strict=True)):
            more = again or row < len(vectors) - 1
            made = product(list(space.unflatten(v).values()), more, False)
            for target, piece in zip(space.unflatten(image).values(), made, strict=True):
                if piece is not None:
                    target.copy_(piece)
        return images

    def chunked(vectors: Tensor, again: bool) -> Tensor:
        nonlocal together
        images = torch.zeros_like(vectors)
        for begin in range(0, len(vectors), chunk):
            rows, targets = vectors[begin : begin + chunk], images[begin : begin + chunk]
            columns = torch.split(rows, list(space.sizes), 1)
            pieces = [
                column.reshape(len(rows), *shape)
                for column, shape in zip(columns, space.shapes, strict=True)
            ]
            more = again or begin + chunk < len(vectors)
            try:
                made = product(pieces, more or together is None, True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                if together:
                    raise
                together = False  # what is wrong with the product itself is wrong one by one, too
                return one_by_one(vectors, again)
            together = True
            for target, piece in zip(torch.split(targets, list(space.sizes), 1), made, strict=True):
                if piece is not None:
                    target.copy_(piece.reshape(target.shape))
        return images

    def either(vectors: Tensor, again: bool) -> Tensor:
        return (one_by_one if together is False else chunked)(vectors, again)

    return one_by_one if chunk == 1 else either


@contextmanager
def saved_bytes() -> Iterator[Callable[[], int]]:
    """Yields a function that tells the bytes saved so far by graphs built inside, each storage once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return (
            tensor.detach()
        )  # the tensor itself would hold its own graph: a cycle that is never freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(seen.values())


def graph_bytes(heads: Sequence[Tensor]) -> int:
    """Bytes that the graph behind ``heads`` holds, each storage once, by a walk over its nodes."""
    seen: dict[int, int] = {}
    known: set[Any] = set()
    nodes: list[Any] = [head.grad_fn for head in heads]
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        nodes += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        saved += getattr(node, "saved_tensors", ())
        for item in saved:
            for tensor in item if isinstance(item, (list, tuple)) else (item,):
                if isinstance(tensor, Tensor):
                    storage = tensor.untyped_storage()
                    seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())
