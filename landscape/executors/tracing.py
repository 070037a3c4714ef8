"""The network's own code as a graph of operations, or the reason why no graph can stand for it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from landscape.data_objective import DataObjective
from landscape.executors.loop import Unsupported

_PLAIN_VALUES = (bool, int, float, str, type(None))
# fmt: off
_CHANGING_OPERATORS = {
    "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor",
}
_VIEWS = {
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "squeeze", "unsqueeze", "expand",
    "chunk", "split", "unbind", "narrow", "select", "contiguous", "detach", "getitem", "getattr",
}
# fmt: on


def traced(objective: DataObjective, moving_buffers: bool) -> fx.Graph:
    """The graph of the objective's network, its options that are no tensors fixed at what the data give.

    Args:
        objective: of the network.
        moving_buffers: whether arithmetic on buffers alone belongs to the graph too.

    Raises:
        Unsupported: the forward cannot be traced, or means something else from batch to batch.
    """
    module, batches = objective.module, objective.batches
    if hooked(module):
        raise Unsupported("the network has hooks")
    if len({(len(batch.args), tuple(batch.kwargs)) for batch in batches}) > 1:
        raise Unsupported("the batches do not all have the same inputs")
    tracer = _Tracer()
    tracer.proxy_buffer_attributes = moving_buffers
    try:
        bound = inspect.signature(module.forward).bind(*batches[0].args, **batches[0].kwargs)
        bound.apply_defaults()
        # A stand-in for an argument left out is not None, and would take the other branch.
        fixed = {k: v for k, v in bound.arguments.items() if isinstance(v, _PLAIN_VALUES)}
        return tracer.trace(module, concrete_args=fixed)
    except Exception as error:  # the user's forward runs on stand-ins here, and may raise anything
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"not traceable: {words}") from error


class _StandIn(fx.Proxy):
    """A value while tracing. To fx's own, ``a += b`` is ``a + b``, which other names of ``a`` do not see."""


def _recorded(function: Callable[..., Any]) -> Callable[[_StandIn, Any], fx.Proxy]:
    return lambda value, other: value.tracer.create_proxy(
        "call_function", function, (value, other), {}
    )


for _name in _CHANGING_OPERATORS:
    setattr(_StandIn, f"__{_name}__", _recorded(getattr(operator, _name)))


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _StandIn(node, self)


def argument_name(node: fx.Node, signature: inspect.Signature) -> str:
    """The argument of ``forward`` behind a placeholder, whose name has a number where it was fixed."""
    name = str(node.target).lstrip("*")
    return name if name in signature.parameters else name.rpartition("_")[0]


def hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its own ``forward``."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def refuse_shared_changes(
    graph: fx.Graph, modules: dict[str, nn.Module], constant: set[fx.Node]
) -> None:
    """Raise where a value changes in place that another operation, or another point, reads.

    Steps are reordered, and constants are shared between points: both are right for pure operations only.

    Raises:
        Unsupported: names the operation.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        operand = node.args[0] if node.args and _changes(node, modules) else None
        while isinstance(operand, fx.Node):
            # Earlier readers are done by then, unless the change is a constant's, which come first.
            late = any(
                order[user] > order[node] or (node in constant and user not in constant)
                for user in operand.users
            )
            if late or (operand in constant and node not in constant):
                raise Unsupported(f"{node.name} changes a value in place that is read elsewhere")
            name = getattr(operand.target, "__name__", operand.target)
            views = operand.op in ("call_method", "call_function") and name in _VIEWS
            operand = operand.args[0] if views and operand.args else None


def _changes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return getattr(modules[str(node.target)], "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    target: Any = node.target
    name = getattr(target, "__name__", "")
    if getattr(target, "__module__", "") == "_operator":  # and_, or_, not_ change nothing
        return name in _CHANGING_OPERATORS
    return name.endswith("_") or bool(node.kwargs.get("inplace")) or "out" in node.kwargs
