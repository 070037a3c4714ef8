"""Layers that users build networks of, drawn at random: one stage of a network at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

Draw = np.random.Generator
Shape = tuple[int, ...]
Stage = Callable[[Draw, Shape], nn.Module]


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Twice(nn.Module):
    """One module used twice, a tanh between."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.tanh(self.inner(x)))


class Temperature(nn.Module):
    """A scalar parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.temperature


class LayerScale(nn.Module):
    """A vector and a table of parameters of the module's own."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(shape[-1]) + 0.5)
        self.table = nn.Parameter(torch.randn(1, *shape) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma + (self.table if x.dim() == self.table.dim() else 0)


class Spectrum(nn.Module):
    """Complex numbers inside: the squared magnitudes of a Fourier transform."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.rand(width // 2 + 1))

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.fft.rfft(x, norm="ortho") * torch.exp(1j * self.phase)
        return torch.view_as_real(turned + turned.square() / 4).flatten(-2)


class Products(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(width, width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bilinear(x, torch.tanh(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads, dropout=0.2, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class Causal(nn.Module):
    """Queries, keys and values from one matrix, through torch's fused function."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        heads = [t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in parts]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Softplus2(nn.Module):
    """A parametrization: positive entries."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


SMOOTH: tuple[Callable[[], nn.Module], ...] = (
    nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Mish, lambda: nn.GELU("tanh"), nn.ELU,
)  # fmt: skip
KINKED: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.PReLU, nn.LeakyReLU, nn.ReLU6, lambda: nn.ReLU(inplace=True), nn.Hardswish,
)  # fmt: skip


def activation(draw: Draw, shape: Shape, smooth: bool = False) -> nn.Module:
    kinds = SMOOTH[:-1] if smooth else SMOOTH + KINKED
    return pick(draw, kinds)()


def pick(draw: Draw, choices: Any) -> Any:
    return choices[int(draw.integers(len(choices)))]


def flag(draw: Draw, share: float = 0.5) -> bool:
    return bool(draw.random() < share)


def _linear(draw: Draw, shape: Shape) -> nn.Module:
    return nn.Linear(shape[-1], int(draw.integers(3, 7)), bias=flag(draw, 0.8))


def _square(draw: Draw, shape: Shape) -> nn.Module:
    return nn.Linear(shape[-1], shape[-1], bias=flag(draw, 0.8))


def _normed_linear(draw: Draw, shape: Shape) -> nn.Module:
    linear = nn.Linear(shape[-1], int(draw.integers(3, 6)))
    if flag(draw):
        return parametrizations.weight_norm(linear)
    if flag(draw):
        return parametrizations.spectral_norm(linear)
    parametrize.register_parametrization(linear, "weight", Softplus2())
    return linear


def _conv(draw: Draw, shape: Shape) -> nn.Module:
    dims, channels = len(shape) - 1, shape[0]
    groups = pick(draw, [g for g in (1, 1, 2, channels) if channels % g == 0])
    outputs = groups * int(draw.integers(1, 3)) if groups > 1 else int(draw.integers(2, 5))
    size = 3 if min(shape[1:]) >= 3 else 1
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    return kind(
        channels, outputs, size, stride=pick(draw, (1, 1, 2)), padding=pick(draw, (0, 1, 1)),
        dilation=pick(draw, (1, 1, 2)) if min(shape[1:]) >= 5 else 1, groups=groups,
        bias=flag(draw, 0.7), padding_mode=pick(draw, ("zeros", "zeros", "zeros", "circular", "reflect")),
    )  # fmt: skip


def _same_conv(draw: Draw, shape: Shape) -> nn.Module:
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[len(shape) - 1]
    return kind(shape[0], shape[0], 3, padding="same", groups=pick(draw, (1, shape[0])))


def _normed_conv(draw: Draw, shape: Shape) -> nn.Module:
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[len(shape) - 1]
    return parametrizations.weight_norm(kind(shape[0], 3, 3, padding=1, bias=flag(draw)))


def _transposed(draw: Draw, shape: Shape) -> nn.Module:
    channels = shape[0]
    groups = pick(draw, [g for g in (1, 2) if channels % g == 0])
    kind = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}[len(shape) - 1]
    return kind(
        channels, groups * int(draw.integers(1, 3)), pick(draw, (1, 2, 3)), groups=groups, bias=flag(draw)
    )  # fmt: skip


def _batch_norm(draw: Draw, shape: Shape) -> nn.Module:
    kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[len(shape) - 1]
    return kind(
        shape[0], eps=1e-2, affine=flag(draw, 0.8), track_running_stats=flag(draw, 0.85),
        momentum=pick(draw, (0.1, None)),
    )  # fmt: skip


def _instance_norm(draw: Draw, shape: Shape) -> nn.Module:
    kind = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d}[len(shape) - 1]
    return kind(shape[0], eps=1e-1, affine=flag(draw), track_running_stats=flag(draw, 0.3))


def _group_norm(draw: Draw, shape: Shape) -> nn.Module:
    groups = pick(
        draw,
        [g for g in (1, 2, shape[0]) if shape[0] % g == 0 and (g < shape[0] or len(shape) > 1)],
    )
    return nn.GroupNorm(groups, shape[0], eps=1e-1, affine=flag(draw, 0.8))


def _layer_norm(draw: Draw, shape: Shape) -> nn.Module:
    over = shape if flag(draw, 0.3) and np.prod(shape) < 40 else shape[-1:]
    return nn.LayerNorm(over, eps=1e-1, elementwise_affine=flag(draw, 0.8))


def _rms_norm(draw: Draw, shape: Shape) -> nn.Module:
    return nn.RMSNorm(shape[-1:], eps=1e-2)


def _max_pool(draw: Draw, shape: Shape) -> nn.Module:
    most, adaptive = (
        (nn.MaxPool1d, nn.AdaptiveMaxPool1d)
        if len(shape) == 2
        else (nn.MaxPool2d, nn.AdaptiveMaxPool2d)
    )
    if min(shape[1:]) < 3:
        return most(1)
    return pick(draw, (
        lambda: most(2), lambda: most(3, 2, padding=1), lambda: most(2, ceil_mode=True), lambda: adaptive(2),
    ))()  # fmt: skip


def _mean_pool(draw: Draw, shape: Shape) -> nn.Module:
    mean, adaptive = (
        (nn.AvgPool1d, nn.AdaptiveAvgPool1d)
        if len(shape) == 2
        else (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    )
    if min(shape[1:]) < 3:
        return adaptive(1)
    return pick(draw, (
        lambda: mean(2), lambda: mean(2, 1), lambda: adaptive(2),
        lambda: mean(3, 1, padding=1, count_include_pad=False),
    ))()  # fmt: skip


def _dropout(draw: Draw, shape: Shape) -> nn.Module:
    return pick(draw, (nn.Dropout, nn.AlphaDropout))(0.4)


def _recurrent(draw: Draw, shape: Shape) -> nn.Module:
    kind, width = pick(draw, (nn.LSTM, nn.GRU, nn.RNN)), int(draw.integers(2, 4))
    both = flag(draw, 0.25)
    width = 2 if both else width
    return Recurrent(
        kind(shape[-1], width, batch_first=True, bidirectional=both, bias=flag(draw, 0.8))
    )


def _attention(draw: Draw, shape: Shape) -> nn.Module:
    heads = 2 if shape[-1] % 2 == 0 else 1
    if flag(draw, 0.3):
        return Causal(shape[-1], heads)
    return Attention(shape[-1], heads, flag(draw, 0.8))


def _encoder(draw: Draw, shape: Shape) -> nn.Module:
    heads = 2 if shape[-1] % 2 == 0 else 1
    layer = nn.TransformerEncoderLayer(
        shape[-1], heads, 5, 0.1, pick(draw, ("relu", "gelu")), batch_first=True, norm_first=flag(draw)
    )  # fmt: skip
    layer.norm1.eps = layer.norm2.eps = 1e-1
    return layer


def _residual(inner: Stage) -> Stage:
    return lambda draw, shape: Residual(inner(draw, shape))


STAGES: dict[str, tuple[Stage, ...]] = {
    "vector": (
        _linear, _linear, _normed_linear, _batch_norm, _layer_norm, _group_norm, _rms_norm, _dropout,
        _residual(_square), lambda d, s: Twice(_square(d, s)), lambda d, s: Temperature(),
        lambda d, s: Spectrum(s[-1]), lambda d, s: Products(s[-1], 3), lambda d, s: LayerScale(s),
    ),
    "signal": (
        _conv, _conv, _normed_conv, _transposed, _batch_norm, _instance_norm, _group_norm, _layer_norm,
        _max_pool, _mean_pool, _residual(_same_conv), lambda d, s: Twice(_same_conv(d, s)), _dropout,
        lambda d, s: Temperature(),
    ),
    "image": (
        _conv, _conv, _conv, _normed_conv, _transposed, _batch_norm, _batch_norm, _instance_norm, _group_norm,
        _layer_norm, _max_pool, _mean_pool, _residual(_same_conv), lambda d, s: nn.Dropout2d(0.3),
        lambda d, s: Temperature(),
    ),
    "sequence": (
        _recurrent, _recurrent, _attention, _residual(_attention), _encoder, _layer_norm, _linear,
        _normed_linear, _residual(_square), _dropout, lambda d, s: LayerScale(s),
    ),
}  # fmt: skip
"""By what goes in: ``(width,)``, ``(channels, length)``, ``(channels, height, width)``, ``(tokens, width)``."""


def stage(draw: Draw, kind: str, shape: Shape, smooth: bool) -> nn.Module:
    """One layer for inputs of this shape (without the examples), drawn; parameters by torch's generator."""
    while True:
        made = pick(draw, STAGES[kind])(draw, shape)
        if not (smooth and any(isinstance(m, ROUGH) for m in made.modules())):
            return made


ROUGH = (
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd, nn.TransformerEncoderLayer,
    nn.RNNBase,
)  # fmt: skip
"""With kinks, and recurrent ones, which ``vmap`` does not take."""
