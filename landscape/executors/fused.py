"""The network as a list of steps, rewritten for a plane: what a plane makes constant is computed once.

Three rewrites, each exact to rounding: a first linear layer is affine in the coordinates, so its responses
to origin and directions are computed once a chunk; a batch norm with fixed statistics is folded into the
convolution before it; convolutions run in channels-last layout with their ReLU and residual sum, and a first
convolution with its pooling becomes one matrix product over windows that are cut out once.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from landscape.batches import Batch
from landscape.data_objective import DataObjective
from landscape.directions import Plane
from landscape.executors.loop import Places, Unsupported, canonical_names
from landscape.executors.steps import (
    AffineLinear,
    Convolution,
    Generic,
    Linear,
    Lookup,
    Module,
    Parameter,
    PooledConvolution,
    Step,
)
from landscape.executors.tracing import argument_name, hooked, refuse_shared_changes, traced

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RELU = (F.relu, torch.relu, torch.relu_)
_ADD = (operator.add, operator.iadd, torch.add)
_MIN_FAN_IN = 64  # below it a linear layer costs less than reading its three stored responses
_MAX_WINDOW = 48  # entries of a window beyond which a convolution beats a matrix product


class FusedProgram:
    """A traced and rewritten network; see the module's docstring.

    Raises:
        Unsupported: the network cannot be traced, changes a value in place that something else reads, or
            its norms are not fixed over the plane.
    """

    group = 1

    def __init__(self, objective: DataObjective, plane: Plane) -> None:
        if objective.norm not in ("eval", "interpolated"):
            raise Unsupported(f"norm={objective.norm!r} recomputes statistics")
        if objective.settings["precision"] != objective.settings["dtype"]:
            raise Unsupported("autocast chooses its own kernels")
        self._objective = objective
        self._plane = plane
        self._module = objective.module
        if objective.changes_inputs:
            raise Unsupported("the network changes its inputs in place")
        self._moving_buffers = plane.buffers if objective.norm == "interpolated" else {}
        graph = traced(objective, bool(self._moving_buffers))
        self._inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self._signature = inspect.signature(self._module.forward)
        self._canonical = canonical_names(self._module)
        self._modules = dict(self._module.named_modules())
        self._images = any(isinstance(m, nn.Conv2d) for m in self._modules.values())
        (self._output,) = [node for node in graph.nodes if node.op == "output"]
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        pieces = [objective.space.unflatten(vector) for vector in (plane.origin, *plane.basis)]
        self._tensors = {name: [piece[name] for piece in pieces] for name in objective.space.names}
        self._constant = self._constant_nodes(graph)
        refuse_shared_changes(graph, self._modules, self._constant)
        self._before, self._steps = self._lower(graph)
        self._last = self._last_uses()
        self._needed = {name for step in self._steps for name in step.reads if not step.shares}
        self._needed |= {node.name for node in self._output.all_input_nodes}

    def block(self, places: Places) -> list[list[Any]]:
        """What each step needs at each point: moved, folded, laid out."""
        block = []
        for place in places.tolist():
            lookup = self._lookup(place)
            block.append([step.prepare(lookup, place) for step in self._steps])
        return block

    def chunk(self, batch: Batch) -> tuple[dict[str, Any], list[Any]]:
        """Values that no parameter of the plane reaches, and what the steps share between points."""
        values = self._bind(batch)
        lookup = self._lookup([0.0] * self._plane.axes)
        for step in self._before:
            values[step.name] = step.run(values, step.prepare(lookup, ()), None)
        shared = [step.share(values) for step in self._steps]
        return {name: values[name] for name in self._needed & values.keys()}, shared

    def outputs(
        self,
        shared: tuple[dict[str, Any], list[Any]],
        block: Sequence[Sequence[Any]],
        batch: Batch,
    ) -> Iterator[Any]:
        """Run the steps at each point."""
        for weights in block:
            values = dict(shared[0])
            for step, own, common, done in zip(
                self._steps, weights, shared[1], self._last, strict=True
            ):
                values[step.name] = step.run(values, own, common)
                for name in done:
                    del values[name]
            yield _evaluated(self._output.args[0], values)

    def _lookup(self, place: Sequence[float]) -> Lookup:
        buffers = self._plane.statistics(*place) if self._moving_buffers else {}

        def lookup(name: str) -> Any:
            known = self._canonical.get(name, name)
            if known in buffers:
                return buffers[known]
            if known not in self._tensors:
                return _attribute(self._module, name)
            # The arithmetic of Plane.point, tensor by tensor: no step moves what it does not need.
            origin, *steps = self._tensors[known]
            moves = [s * c for s, c in zip(steps, place, strict=True)]
            step = moves[0] if len(moves) == 1 else moves[0] + moves[1]
            moved: Tensor = origin + step
            return moved

        return lookup

    def _bind(self, batch: Batch) -> dict[str, Any]:
        bound = self._signature.bind(*batch.args, **batch.kwargs)
        bound.apply_defaults()
        values = {}
        for node in self._inputs:
            value = bound.arguments[argument_name(node, self._signature)]
            if self._images and isinstance(value, Tensor) and value.dim() == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            values[node.name] = value
        return values

    def _constant_nodes(self, graph: fx.Graph) -> set[fx.Node]:
        """Nodes that neither a moving parameter nor interpolated statistics reach."""
        moving = {*self._objective.space.names, *self._moving_buffers}
        constant: set[fx.Node] = set()
        for node in graph.nodes:
            own: list[str] = []
            if node.op == "get_attr":
                own = [str(node.target)]
            elif node.op == "call_module":
                module = self._modules[str(node.target)]
                tensors = [*module.named_parameters(), *module.named_buffers()]
                own = [f"{node.target}.{name}" for name, _ in tensors]
            moves = any(self._canonical.get(name, name) in moving for name in own)
            if not moves and all(arg in constant for arg in node.all_input_nodes):
                constant.add(node)
        return constant

    def _lower(self, graph: fx.Graph) -> tuple[list[Step], list[Step]]:
        before: list[Step] = []
        steps: list[Step] = []
        taken: set[fx.Node] = set()
        for node in graph.nodes:
            if node.op in ("placeholder", "output") or node in taken:
                continue
            if node in self._constant:
                before.append(self._generic(node))
                continue
            step, chain = self._special(node)
            steps.append(step or self._generic(node))
            taken.update(chain)
        return before, steps

    def _special(self, node: fx.Node) -> tuple[Step | None, list[fx.Node]]:
        """A fused step that starts at this node, and the nodes that it covers."""
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(source, fx.Node) or module is None or hooked(module):
            return None, []
        if type(module) is nn.Linear:
            return self._linear(node, source, module)
        if type(module) is nn.Conv2d:
            plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
            return self._convolution(node, source, module) if plain else (None, [])
        return None, []

    def _linear(
        self, node: fx.Node, source: fx.Node, module: nn.Linear
    ) -> tuple[Step | None, list[fx.Node]]:
        chain, relu = self._then_relu([node])
        plain = Linear(chain[-1].name, source.name, str(node.target), module.bias is not None, relu)
        if source not in self._constant or module.in_features < _MIN_FAN_IN:
            return plain, chain
        names = [self._canonical.get(f"{node.target}.{leaf}", "") for leaf in ("weight", "bias")]
        if names[0] not in self._tensors or (
            module.bias is not None and names[1] not in self._tensors
        ):
            return plain, chain  # partly frozen: rare, and the plain way is right
        biases = [None] * (1 + self._plane.axes) if module.bias is None else self._tensors[names[1]]
        pairs = list(zip(self._tensors[names[0]], biases, strict=True))
        return AffineLinear(chain[-1].name, source.name, pairs, relu), chain

    def _convolution(
        self, node: fx.Node, source: fx.Node, module: nn.Conv2d
    ) -> tuple[Step | None, list[fx.Node]]:
        chain = [node]
        norm = None
        after = _only_user(node)
        if after is not None and after.op == "call_module":
            candidate = self._modules[str(after.target)]
            # The type itself: a parametrized norm is a subclass, whose weight is computed.
            fixed = type(candidate) in _NORMS and candidate.running_mean is not None
            if fixed and not hooked(candidate):
                norm = (str(after.target), candidate)
                chain.append(after)
        window = (module.kernel_size[0] + 1) * (module.kernel_size[1] + 1) * module.in_channels
        if source in self._constant and window <= _MAX_WINDOW and _simple(module):
            pooled = self._then_pool(chain)
            if pooled is not None:
                whole, relu = pooled
                name = whole[-1].name
                pooling = PooledConvolution(name, source.name, str(node.target), module, norm, relu)
                return pooling, whole
        base = chain[-1]
        after = _only_user(base)
        other: fx.Node | None = None
        if after is not None and after.op == "call_function" and after.target in _ADD:
            operands = [arg for arg in after.args if arg is not base]
            if len(operands) == 1 and isinstance(operands[0], fx.Node) and not after.kwargs:
                other = operands[0]
                chain = [*chain, after]
        if other is not None and self._order[other] > self._order[node]:
            other, chain = None, chain[:-1]  # the other branch comes later, and may take the sum
        chain, relu = self._then_relu(chain)
        step = Convolution(
            chain[-1].name,
            source.name,
            str(node.target),
            module,
            norm,
            None if other is None else other.name,
            relu,
        )
        return step, chain

    def _then_relu(self, chain: list[fx.Node]) -> tuple[list[fx.Node], bool]:
        after = _only_user(chain[-1])
        if after is not None and self._is_relu(after):
            return [*chain, after], True
        return chain, False

    def _then_pool(self, chain: list[fx.Node]) -> tuple[list[fx.Node], bool] | None:
        """The chain up to a 2x2 max-pooling and its ReLU, in either order."""
        longer, relu = self._then_relu(chain)
        after = _only_user(longer[-1])
        if after is None or not self._is_halving(after):
            return None
        longer = [*longer, after]
        return (longer, True) if relu else self._then_relu(longer)

    def _is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            return type(module) is nn.ReLU and not hooked(module)
        if node.op == "call_function":
            return node.target in _RELU
        return node.op == "call_method" and node.target in ("relu", "relu_")

    def _is_halving(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            if type(module) is not nn.MaxPool2d or module.return_indices or hooked(module):
                return False
            sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
            return (
                sizes in ((2, 2, 0, 1), ((2, 2), (2, 2), (0, 0), (1, 1))) and not module.ceil_mode
            )
        if node.op != "call_function" or node.target not in (F.max_pool2d, torch.max_pool2d):
            return False
        return node.args[1:] in ((2,), (2, 2)) and not {
            k: v for k, v in node.kwargs.items() if (k, v) not in _POOL_DEFAULTS
        }

    def _generic(self, node: fx.Node) -> Step:
        if node.op == "get_attr":
            return Parameter(node)
        if node.op == "call_module":
            return Module(node, self._modules[str(node.target)])
        if node.op == "call_method":
            return Generic(node, _method(node))
        return Generic(node, cast(Callable[..., Any], node.target))

    def _last_uses(self) -> list[list[str]]:
        """For each step, the values that nobody needs after it."""
        kept = {node.name for node in self._output.all_input_nodes}
        made = {step.name for step in self._steps}
        seen: set[str] = set()
        result: list[list[str]] = []
        for step in reversed(self._steps):
            names = {*step.reads, step.name} & made
            result.append(sorted(names - seen - kept))
            seen |= names
        return result[::-1]


_POOL_DEFAULTS = (
    ("stride", None), ("stride", 2), ("padding", 0), ("dilation", 1), ("ceil_mode", False),
    ("return_indices", False),
)  # fmt: skip


def _evaluated(tree: Any, values: Mapping[str, Any]) -> Any:
    def value(node: fx.Node) -> Any:
        return values[node.name]

    return fx.node.map_arg(tree, value)


def _method(node: fx.Node) -> Callable[..., Any]:
    name = str(node.target)
    if not any(isinstance(arg, torch.dtype) for arg in node.args):
        # Views of a contiguous tensor; ours may be channels-last.
        name = {"view": "reshape", "view_as": "reshape_as"}.get(name, name)
    return lambda owner, *args, **kwargs: getattr(owner, name)(*args, **kwargs)


def _attribute(module: nn.Module, name: str) -> Any:
    return operator.attrgetter(name)(module)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _simple(module: nn.Conv2d) -> bool:
    return module.stride == (1, 1) and module.dilation == (1, 1) and module.groups == 1
