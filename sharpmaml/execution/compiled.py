"""The ``vmap`` over tasks, compiled: for small networks, where the calls cost more than the arithmetic."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpmaml.execution.batches import Columns, NetworkBatch
from sharpmaml.execution.unrolled import Changing, Computation, Found
from sharpmaml.execution.vectorized import Vectorized
from sharpmaml.plan import Plan

_STATE = {
    "TENSOR_MATCH", "SHAPE_ENV", "GRAD_MODE", "GLOBAL_STATE", "DETERMINISTIC_ALGORITHMS",
    "TORCH_FUNCTION_STATE", "DEFAULT_DEVICE", "FUNCTORCH_STACK_MATCH", "AUTOGRAD_SAVED_TENSORS_HOOKS",
}  # fmt: skip


class Compiled(Vectorized):
    """What `Vectorized` computes, through ``torch.compile``.

    Compiled once for each network, plan and shape of a chunk: tens of seconds, then the same code again.
    Learned rates, masks and the weights of the multi-step loss may change without another compilation.
    Implicit gradients and Reptile have no unrolled steps and are computed as `Vectorized` does.

    Args:
        tasks_at_once: tasks of a chunk; 0: all of them.

    Attributes:
        first_call_seconds: wall-clock time of the last call that had to compile; ``None`` before.

    Raises:
        ValueError: a negative number; when called, also where there is no working C++ compiler.
    """

    name = "compile"

    def __init__(self, tasks_at_once: int = 0) -> None:
        super().__init__(tasks_at_once)
        self.first_call_seconds: float | None = None
        self._compiled: dict[Any, tuple[NetworkBatch, Computation]] = {}

    def _computation(
        self, network: NetworkBatch, plan: Plan, columns: Columns, ascents: Tensor | None
    ) -> Computation:
        key = _key(network, plan, columns, ascents)
        if key not in self._compiled:
            compute = super()._computation(network, plan, columns, ascents)
            # The network is kept as well: its identity is part of the key.
            self._compiled[key] = (network, self._first(key, compute))
        return self._compiled[key][1]

    def _first(self, key: Any, compute: Computation) -> Computation:
        options: dict[str, Any] = {"guard_filter_fn": _checked}
        if key[-1][0].type == "cpu":
            # There the calls between the kernels cost as much as the kernels: they are compiled too.
            options["cpp_wrapper"] = True
        ready: Any = torch.compile(compute, dynamic=False, options=options)

        def first(
            theta: Tensor, tensors: Changing, columns: Columns, ascents: Tensor | None
        ) -> Found:
            began = time.perf_counter()
            try:
                found: Found = ready(theta, tensors, columns, ascents)
            except Exception as error:  # the compiler raises many kinds
                del self._compiled[key]
                raise _readable(error) from error
            self.first_call_seconds = time.perf_counter() - began
            self._compiled[key] = (self._compiled[key][0], ready)
            return found

        return first


def _key(network: NetworkBatch, plan: Plan, columns: Columns, ascents: Tensor | None) -> Any:
    inner = plan.inner
    fixed = isinstance(inner.rate, (int, float)) and not plan.learns_rates
    settings = dataclasses.replace(inner, rate=inner.rate if fixed else 0.0, adapted=None)
    like = columns[0]
    return (
        id(network.model),
        id(network.space),
        network.kind,
        settings,
        None if fixed or isinstance(inner.rate, (int, float)) else inner.rate.ndim,
        inner.adapted is None,
        plan.weights is None,
        plan.learns_rates,
        plan.keeps_ascents,
        ascents is None,
        tuple((column.shape, column.dtype) for column in columns),
        (like.device, like.dtype),
    )


def _checked(guards: Sequence[Any]) -> list[bool]:
    """What is looked at again before every call: tensors, the model, and the state of torch.

    The rest are hundreds of settings that cannot change: they are frozen, and told apart by `_key`.
    """
    return [guard.guard_type in _STATE or ".model" in guard.name for guard in guards]


def _readable(error: Exception) -> Exception:
    """A user's error where nothing can be compiled here; any other as it is."""
    import torch._inductor.exc as inductor
    from torch._dynamo.exc import BackendCompilerFailed

    seen: BaseException | None = error
    while seen is not None:
        missing = isinstance(seen, (inductor.InvalidCxxCompiler, inductor.CppCompileError))
        if missing or isinstance(seen, (FileNotFoundError, PermissionError)):
            line = str(seen).strip().splitlines()[0]
            return ValueError(
                f"executor 'compile' needs a working C++ compiler ({line}): install one, name it in "
                "the environment variable CXX, or use executor 'vmap'"
            )
        if isinstance(seen, BackendCompilerFailed) and hasattr(seen, "inner_exception"):
            seen = seen.inner_exception
        else:
            seen = seen.__cause__ or seen.__context__
    return error
