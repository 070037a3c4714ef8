"""The steps of a rewritten network, and the kernels behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

Lookup = Callable[[str], Tensor]
"""Name of a parameter or buffer -> the tensor at the point."""

Values = Mapping[str, Any]
"""What is computed already, by the name of its node."""

_ROWS = 2048
_WIDTH = 16  # columns of a matrix product that a CPU's vector units fill

BatchNorm = nn.modules.batchnorm._BatchNorm


class Step:
    """One operation of the network.

    Attributes:
        name: of the value that it makes.
        reads: names of the values that it needs.
        shares: whether :meth:`share` is all that reads them, so that no point needs them.
    """

    shares = False

    def __init__(self, name: str, reads: Sequence[str]) -> None:
        self.name = name
        self.reads = tuple(reads)

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> Any:
        """What the step needs at a point; made once for all chunks."""

    def share(self, values: Values) -> Any:
        """What the step needs for a chunk; made once for all points of a block."""

    def run(self, values: Values, own: Any, shared: Any) -> Any:
        """The value, given what :meth:`prepare` and :meth:`share` made."""
        raise NotImplementedError


class Generic(Step):
    """Any node, computed as the network's own code would."""

    def __init__(self, node: fx.Node, function: Callable[..., Any]) -> None:
        super().__init__(node.name, [source.name for source in node.all_input_nodes])
        self._node = node
        self._function = function

    def run(self, values: Values, own: Any, shared: Any) -> Any:
        """Call the function on the values its arguments stand for."""
        args = fx.node.map_arg(self._node.args, lambda source: values[source.name])
        kwargs = fx.node.map_arg(self._node.kwargs, lambda source: values[source.name])
        return self._function(*args, **kwargs)


class Parameter(Step):
    """A tensor of the network itself."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__(node.name, [])
        self._target = str(node.target)

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> Tensor:
        """The tensor at the point."""
        return lookup(self._target)

    def run(self, values: Values, own: Tensor, shared: Any) -> Tensor:
        """The tensor itself."""
        return own


class Module(Generic):
    """A module, called functionally with its tensors at the point."""

    def __init__(self, node: fx.Node, module: nn.Module) -> None:
        super().__init__(node, module)
        self._module = module
        tensors = [*module.named_parameters(), *module.named_buffers()]
        self._names = {name: f"{node.target}.{name}" for name, _ in tensors}

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> dict[str, Tensor]:
        """Its tensors by their own names."""
        return {name: lookup(full) for name, full in self._names.items()}

    def run(self, values: Values, own: dict[str, Tensor], shared: Any) -> Any:
        """The module's output."""
        args = fx.node.map_arg(self._node.args, lambda source: values[source.name])
        kwargs = fx.node.map_arg(self._node.kwargs, lambda source: values[source.name])
        if not own:
            return self._module(*args, **kwargs)
        return functional_call(self._module, own, args, dict(kwargs))


class Linear(Step):
    """A linear layer and the ReLU after it."""

    def __init__(self, name: str, source: str, target: str, bias: bool, relu: bool) -> None:
        super().__init__(name, [source])
        self._source, self._target, self._bias, self._relu = source, target, bias, relu

    def prepare(
        self, lookup: Lookup, place: Sequence[float]
    ) -> tuple[Tensor, Tensor | None, int | None]:
        """Weight, bias, and how many outputs count (``None``: all)."""
        weight = lookup(f"{self._target}.weight")
        bias = lookup(f"{self._target}.bias") if self._bias else None
        missing = _WIDTH - len(weight)
        if missing <= 0 or weight.device.type != "cpu":
            return weight, bias, None
        # A matrix product with ten columns costs more than twice one with sixteen.
        wider = None if bias is None else F.pad(bias, (0, missing))
        return F.pad(weight, (0, 0, 0, missing)), wider, len(weight)

    def run(
        self, values: Values, own: tuple[Tensor, Tensor | None, int | None], shared: Any
    ) -> Tensor:
        """``relu(x Wᵀ + b)``."""
        weight, bias, count = own
        out = F.linear(values[self._source], weight, bias)
        if count is not None:
            out = out[..., :count]
        return out.relu_() if self._relu else out


class AffineLinear(Step):
    """A linear layer whose input no point changes: its output is affine in the coordinates.

    ``x (W + αD₁ + βD₂)ᵀ = xWᵀ + α xD₁ᵀ + β xD₂ᵀ``: three responses a chunk, two sums a point.

    Args:
        name: of the value.
        source: of the input.
        tensors: weight and bias of the origin and of each direction, in that order.
        relu: whether a ReLU follows.
    """

    shares = True

    def __init__(
        self,
        name: str,
        source: str,
        tensors: Sequence[tuple[Tensor, Tensor | None]],
        relu: bool,
    ) -> None:
        super().__init__(name, [source])
        self._source, self._relu = source, relu
        moves = [any(t is not None and bool(t.any()) for t in pair) for pair in tensors[1:]]
        self._tensors: list[tuple[Tensor, Tensor | None] | None] = [tensors[0]]
        self._tensors += [p if move else None for p, move in zip(tensors[1:], moves, strict=True)]

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> Sequence[float]:
        """The coordinates."""
        return place

    def share(self, values: Values) -> list[Tensor | None]:
        """Responses to the origin and to each direction."""
        x = values[self._source]
        return [None if pair is None else F.linear(x, *pair) for pair in self._tensors]

    def run(self, values: Values, own: Sequence[float], shared: Any) -> Tensor:
        """Responses summed with the coordinates as weights."""
        out: Tensor = shared[0]
        others: list[Tensor | None] = shared[1:]
        fresh = False
        for coordinate, response in zip(own, others, strict=True):
            if response is not None:
                add = out.add_ if fresh else out.add
                out, fresh = add(response, alpha=coordinate), True
        if not fresh:  # nothing moves: the response belongs to all points
            return out.relu() if self._relu else out.clone()
        return out.relu_() if self._relu else out


class Convolution(Step):
    """A 2-D convolution in channels-last layout with what follows it: batch norm, a sum, a ReLU.

    Args:
        name: of the value.
        source: of the input.
        target: name of the convolution.
        module: the convolution, for its sizes.
        norm: name and module of the batch norm that follows; folded into the weights.
        other: the value that is added.
        relu: whether a ReLU follows.
    """

    def __init__(
        self,
        name: str,
        source: str,
        target: str,
        module: nn.Conv2d,
        norm: tuple[str, BatchNorm] | None,
        other: str | None,
        relu: bool,
    ) -> None:
        super().__init__(name, [source] if other is None else [source, other])
        self._source, self._other, self._relu = source, other, relu
        self._target, self._norm = target, norm
        self._bias = module.bias is not None
        self._padding = [int(size) for size in module.padding]
        self._stride, self._dilation = list(module.stride), list(module.dilation)
        self._groups = module.groups

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """Folded weight, channels last, and bias."""
        weight, bias = folded(lookup, self._target, self._bias, self._norm)
        return weight.contiguous(memory_format=torch.channels_last), bias

    def run(self, values: Values, own: tuple[Tensor, Tensor | None], shared: Any) -> Tensor:
        """``relu(conv(x) + other)``."""
        x = values[self._source].contiguous(memory_format=torch.channels_last)
        other = None if self._other is None else values[self._other]
        if _fusing(x):
            return self._fused(x, other, *own)
        out = F.conv2d(x, *own, self._stride, self._padding, self._dilation, self._groups)
        if other is not None:
            out = out + other
        return out.relu_() if self._relu else out

    def _fused(
        self, x: Tensor, other: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        kernel = torch.ops.mkldnn._convolution_pointwise
        relu = "relu" if self._relu else "none"
        sizes = (self._padding, self._stride, self._dilation, self._groups)
        if other is None:
            result: Tensor = kernel(x, weight, bias, *sizes, relu, [], "")
            return result
        same = isinstance(other, Tensor) and other.dtype == x.dtype
        if same and tuple(other.shape) == self._shape(x, weight):
            other = other.contiguous(memory_format=torch.channels_last)
            act = "relu" if self._relu else None
            result = kernel.binary(x, other, weight, bias, *sizes, "add", 1.0, act, [], None)
            return result
        result = kernel(x, weight, bias, *sizes, "none", [], "") + other
        return result.relu_() if self._relu else result

    def _shape(self, x: Tensor, weight: Tensor) -> tuple[int, ...]:
        reach = [self._dilation[i] * (weight.shape[2 + i] - 1) + 1 for i in (0, 1)]
        room = [x.shape[2 + i] + 2 * self._padding[i] - reach[i] for i in (0, 1)]
        return (
            x.shape[0],
            weight.shape[0],
            *(r // s + 1 for r, s in zip(room, self._stride, strict=True)),
        )


class PooledConvolution(Step):
    """A first convolution and its 2x2 max-pooling as one matrix product over windows cut out once.

    A window holds what one pooled output sees; the four positions of the kernel in it are four blocks
    of columns, and the maximum over them is the pooling.
    """

    shares = True

    def __init__(
        self,
        name: str,
        source: str,
        target: str,
        module: nn.Conv2d,
        norm: tuple[str, BatchNorm] | None,
        relu: bool,
    ) -> None:
        super().__init__(name, [source])
        self._source, self._target, self._norm, self._relu = source, target, norm, relu
        self._bias = module.bias is not None
        self._padding = [int(size) for size in module.padding]
        self._kernel = module.kernel_size

    def prepare(self, lookup: Lookup, place: Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """``(window entries, 4 x channels)`` and the bias."""
        weight, bias = folded(lookup, self._target, self._bias, self._norm)
        outputs, inputs, height, width = weight.shape
        matrix = weight.new_zeros(inputs, height + 1, width + 1, 4, outputs)
        kernel = weight.permute(1, 2, 3, 0)
        for position in range(4):
            row, column = divmod(position, 2)
            matrix[:, row : row + height, column : column + width, position] = kernel
        return matrix.view(-1, 4 * outputs), bias

    def share(self, values: Values) -> tuple[Tensor, tuple[int, int, int]]:
        """``(examples x windows, window entries)`` and examples, height and width after pooling."""
        vertical, horizontal = self._padding
        x = F.pad(values[self._source], (horizontal, horizontal, vertical, vertical))
        height, width = self._kernel
        windows = x.unfold(2, height + 1, 2).unfold(3, width + 1, 2).permute(0, 2, 3, 1, 4, 5)
        n, rows, columns = windows.shape[:3]
        return windows.reshape(n * rows * columns, -1), (n, rows, columns)

    def run(self, values: Values, own: tuple[Tensor, Tensor | None], shared: Any) -> Tensor:
        """``(examples, channels, height, width)`` in channels-last layout."""
        windows, (n, rows, columns) = shared
        weight, bias = own
        half, channels = weight.shape[1] // 2, weight.shape[1] // 4
        out: Tensor = windows.new_empty(len(windows), channels)
        # A few rows at a time: the responses are four times the result, and stay in the cache.
        responses, pairs = windows.new_empty(_ROWS, 2 * half), windows.new_empty(_ROWS, half)
        pieces = torch.split(windows, _ROWS), torch.split(out, _ROWS)
        for some, result in zip(*pieces, strict=True):
            four, two = responses[: len(some)], pairs[: len(some)]
            torch.mm(some, weight, out=four)
            torch.maximum(four[:, :half], four[:, half:], out=two)
            torch.maximum(two[:, :channels], two[:, channels:], out=result)
        if bias is not None:
            out.add_(bias)
        if self._relu:
            out.relu_()
        return out.view(n, rows, columns, channels).permute(0, 3, 1, 2)


def folded(
    lookup: Lookup, target: str, has_bias: bool, norm: tuple[str, BatchNorm] | None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the batch norm after it folded in.

    With fixed statistics ``γ (Wx + b - μ) / √(σ² + ε) + β`` is a convolution again.
    """
    weight = lookup(f"{target}.weight")
    bias = lookup(f"{target}.bias") if has_bias else None
    if norm is None:
        return weight, bias
    name, module = norm
    scale = torch.rsqrt(lookup(f"{name}.running_var") + module.eps)
    if module.affine:
        scale = scale * lookup(f"{name}.weight")
    mean = lookup(f"{name}.running_mean")
    shift = (-mean if bias is None else bias - mean) * scale
    if module.affine:
        shift = shift + lookup(f"{name}.bias")
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), shift


def _fusing(x: Tensor) -> bool:
    usable = x.device.type == "cpu" and x.dtype == torch.float32
    return usable and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
