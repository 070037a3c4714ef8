"""Small networks of every kind that users draw from, for tests that ways of computing agree."""

from __future__ import annotations

import operator

import numpy as np
import torch
import torch.nn.functional as F
from problems import normal
from torch import nn


class Net(nn.Module):
    """Modules by name, and a forward that a test writes in one line."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.write = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.write(self, x)


class Head(nn.Module):
    """Mean over positions, three classes."""

    def __init__(self, width):
        super().__init__()
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        return self.out(x.mean((2, 3)))


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, **{"padding": size // 2, **options})


def norm(width, **options):
    """Batch norm whose stored statistics, scale and shift are not the initial ones."""
    module = nn.BatchNorm2d(width, eps=1e-2, **options)
    draw = np.random.default_rng(width)
    for name, low, high in (
        ("running_mean", -0.5, 0.5),
        ("running_var", 0.3, 2),
        ("weight", -1, 1.5),
        ("bias", -0.5, 0.5),
    ):
        tensor = getattr(module, name)
        if tensor is not None:
            tensor.data.copy_(torch.from_numpy(draw.uniform(low, high, width)))
    return module


def frozen(module, leaf=""):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.endswith(leaf))
    return module


def tied():
    one, two = nn.Linear(64, 8), nn.Linear(8, 64, bias=False)
    head = nn.Linear(64, 8)
    head.weight = one.weight
    return Net(lambda m, x: m.head(m.two(m.one(x)))[:, :3], one=one, two=two, head=head)


def block(forward, **parts):
    """A network around a residual block: stem, block, head."""
    shared = {"stem": conv(1, 4), "head": Head(8), "relu": nn.ReLU(inplace=True)}
    return lambda: Net(forward, **shared, **{k: make() for k, make in parts.items()})


def padded(m, x):
    x = m.relu(m.stem(x))
    out = m.b2(m.c2(F.relu(m.b1(m.c1(x)))))
    out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return m.head(F.relu(out))


def preactivation(m, x):
    x = m.stem(x)
    h = F.relu(m.b0(x))
    out = m.c2(F.relu(m.b1(m.c1(h))))
    return m.head(out + m.short(h))


STRIDED = {
    "c1": lambda: conv(4, 8, stride=2, bias=False),
    "b1": lambda: norm(8),
    "c2": lambda: conv(8, 8, bias=False),
    "b2": lambda: norm(8),
}
SHORTCUT = {"short": lambda: conv(4, 8, 1, stride=2), "bs": lambda: norm(8)}
NARROW = {"c1": lambda: conv(4, 8), "c2": lambda: conv(8, 4), "up": lambda: conv(4, 8, 1)}


def stack(*parts):
    return lambda: nn.Sequential(*(part() for part in parts))


def images(n=9, size=7, channels=1):
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 3, n))
    return normal(n, channels, size, size, seed=2), labels


def vectors(width):
    return lambda: (normal(9, width, seed=3), images()[1])


def first(*between, **options):
    """A first convolution and what follows it."""
    parts = [lambda: conv(1, 5, **options), *between]
    return stack(*parts, lambda: conv(5, 6), nn.ReLU, lambda: Head(6))


POOL = lambda: nn.MaxPool2d(2)  # noqa: E731

# name: (network, data, a step of the rewritten network, one that it must not have or how many it has)
NETWORKS = {
    "mlp": (
        stack(lambda: nn.Linear(70, 6), nn.ReLU, lambda: nn.Linear(6, 3)),
        vectors(70),
        "AffineLinear",
        "Generic",
    ),
    "mlp, narrow": (
        stack(lambda: nn.Linear(5, 6), nn.ReLU, lambda: nn.Linear(6, 3)),
        vectors(5),
        "Linear",
        "AffineLinear",
    ),
    "mlp, first layer frozen": (
        stack(lambda: frozen(nn.Linear(70, 6)), nn.ReLU, lambda: nn.Linear(6, 3)),
        vectors(70),
        "Linear",
        "Module",
    ),
    "mlp, wide second layer after a frozen one": (
        stack(lambda: frozen(nn.Linear(5, 64)), nn.Tanh, lambda: nn.Linear(64, 3)),
        vectors(5),
        "AffineLinear",
        "Module",
    ),
    "mlp, bias frozen": (
        stack(lambda: frozen(nn.Linear(70, 6), "bias"), nn.Tanh, lambda: nn.Linear(6, 3)),
        vectors(70),
        "Linear",
        "AffineLinear",
    ),
    "mlp, no biases": (
        stack(lambda: nn.Linear(70, 6, bias=False), nn.ReLU, lambda: nn.Linear(6, 3, bias=False)),
        vectors(70),
        "AffineLinear",
        "Generic",
    ),
    "mlp, input used twice": (
        lambda: Net(
            lambda m, x: m.b(torch.cat([F.relu(m.a(x)), m.a(x)], 1)) + x[:, :3],
            a=nn.Linear(70, 4),
            b=nn.Linear(8, 3),
        ),
        vectors(70),
        "AffineLinear",
        None,
    ),
    "tied": (tied, vectors(64), "AffineLinear", None),
    "pool after relu": (
        first(lambda: norm(5), nn.ReLU, POOL),
        images,
        "PooledConvolution",
        4,
    ),
    "pool before relu": (
        first(lambda: norm(5), POOL, nn.ReLU),
        images,
        "PooledConvolution",
        4,
    ),
    "pool without relu": (first(lambda: norm(5), POOL), images, "PooledConvolution", None),
    "pool, even size": (
        first(POOL, nn.ReLU),
        lambda: images(size=8),
        "PooledConvolution",
        None,
    ),
    "pool, no padding": (first(nn.ReLU, POOL, padding=0), images, "PooledConvolution", None),
    "pool, no bias": (
        first(nn.ReLU, POOL, bias=False),
        images,
        "PooledConvolution",
        None,
    ),
    "pool, unequal sides": (
        stack(lambda: nn.Conv2d(1, 5, (3, 5), padding=(1, 0)), nn.ReLU, POOL, lambda: Head(5)),
        images,
        "PooledConvolution",
        None,
    ),
    "pool, kernel 5": (first(nn.ReLU, POOL, size=5), images, "PooledConvolution", None),
    "pool, colour": (
        stack(lambda: conv(3, 5), nn.ReLU, POOL, lambda: Head(5)),
        lambda: images(channels=3),
        "PooledConvolution",
        None,
    ),
    "pool, too wide a window": (
        stack(lambda: conv(3, 5, 5), nn.ReLU, POOL, lambda: Head(5)),
        lambda: images(channels=3),
        "Convolution",
        "PooledConvolution",
    ),
    "functional pool": (
        lambda: Net(
            lambda m, x: m.head(F.max_pool2d(F.relu(m.norm(m.c(x))), 2, stride=2)),
            c=conv(1, 5),
            norm=norm(5),
            head=Head(5),
        ),
        images,
        "PooledConvolution",
        3,
    ),
    "other pools": (
        lambda: Net(
            lambda m, x: m.head(
                F.max_pool2d(m.c(x), 3, 2)[..., :1, :1]
                + F.max_pool2d(m.c(x), 2, ceil_mode=True)[..., -1:, -1:]
                + F.max_pool2d(m.c(x), 2, 1)[..., :1, :1]
                + m.pad(m.c(x))[..., :1, :1]
                + m.up(m.c(x))[..., -1:, -1:]
                + F.avg_pool2d(m.c(x), 2)[..., :1, :1]
            ),
            c=conv(1, 5),
            pad=nn.MaxPool2d(2, padding=1),
            up=nn.MaxPool2d(2, ceil_mode=True),
            head=Head(5),
        ),
        images,
        "Convolution",
        "PooledConvolution",
    ),
    "stride": (first(lambda: norm(5), nn.ReLU, stride=2), images, "Convolution", None),
    "stride and pool": (first(nn.ReLU, POOL, stride=2), images, None, "PooledConvolution"),
    "dilation and pool": (first(POOL, dilation=2), images, None, "PooledConvolution"),
    "depthwise": (
        first(lambda: conv(5, 5, groups=5), lambda: norm(5), nn.ReLU, lambda: conv(5, 5, 1)),
        images,
        "Convolution",
        "Module",
    ),
    "groups and pool": (
        stack(lambda: conv(2, 4, groups=2), lambda: norm(4), POOL, nn.ReLU, lambda: Head(4)),
        lambda: images(channels=2),
        "Convolution",
        "PooledConvolution",
    ),
    "reflected": (
        first(lambda: norm(5), nn.ReLU, POOL, padding_mode="reflect"),
        images,
        "Module",
        "PooledConvolution",
    ),
    "same": (first(nn.ReLU, padding="same"), images, "Module", None),
    "transposed": (
        first(lambda: nn.ConvTranspose2d(5, 5, 2, stride=2), lambda: norm(5), nn.ReLU),
        images,
        "Module",
        None,
    ),
    "norm without affine": (
        first(lambda: norm(5, affine=False), nn.ReLU),
        images,
        "Convolution",
        "Module",
    ),
    "norm without statistics": (
        first(lambda: nn.BatchNorm2d(5, track_running_stats=False), nn.ReLU),
        images,
        "Module",
        None,
    ),
    "norm used twice": (
        lambda: Net(
            lambda m, x: m.head(F.relu(m.norm(m.b(F.relu(m.norm(m.a(x))))))),
            a=conv(1, 5),
            b=conv(5, 5),
            norm=norm(5),
            head=Head(5),
        ),
        images,
        "Convolution",
        "Module",
    ),
    "norm before": (
        stack(lambda: norm(1), nn.ReLU, lambda: conv(1, 4), lambda: Head(4)),
        images,
        "Convolution",
        None,
    ),
    "augmented sums": (
        lambda: Net(
            lambda m, x: (
                h := m.a(x),
                h := operator.iadd(h, m.b(h)),
                h := operator.imul(h, m.scale),
                m.out(operator.isub(h, m.b(F.relu(h)))),
            )[3],
            a=nn.Linear(70, 5),
            b=nn.Linear(5, 5),
            out=nn.Linear(5, 3),
            scale=nn.Parameter(torch.tensor(0.7)),
        ),
        vectors(70),
        "AffineLinear",
        9,
    ),
    "augmented sum of convolutions": (
        block(
            lambda m, x: (h := m.stem(x), m.head(m.up(operator.iadd(h, m.c2(F.relu(m.c1(h)))))))[1],
            **NARROW,
        ),
        images,
        "Convolution",
        6,
    ),
    "convolution used twice": (
        lambda: Net(
            lambda m, x: m.head(m.c(F.relu(m.norm(m.c(m.stem(x)))))),
            stem=conv(1, 5),
            c=conv(5, 5),
            norm=norm(5),
            head=Head(5),
        ),
        images,
        "Convolution",
        None,
    ),
    "convolution with two readers": (
        lambda: Net(
            lambda m, x: (h := m.c(x), m.head(F.relu(m.norm(h)) + h))[1],
            c=conv(1, 5),
            norm=norm(5),
            head=Head(5),
        ),
        images,
        "Module",
        None,
    ),
    "relu and sum read one norm": (
        lambda: Net(
            lambda m, x: (h := m.norm(m.c(x)), m.head(F.relu(h) + 2 * h))[1],
            c=conv(1, 5),
            norm=norm(5),
            head=Head(5),
        ),
        images,
        "Convolution",
        None,
    ),
    "sum with itself": (
        lambda: Net(
            lambda m, x: (h := m.c(x), m.head(F.relu(h + h)))[1], c=conv(1, 5), head=Head(5)
        ),
        images,
        "Convolution",
        None,
    ),
    "sum with a multiple": (
        lambda: Net(
            lambda m, x: m.head(torch.add(m.b(x), m.a(x), alpha=0.3)),
            a=conv(1, 5),
            b=conv(1, 5),
            head=Head(5),
        ),
        images,
        "Convolution",
        None,
    ),
    "sum that broadcasts": (
        lambda: Net(
            lambda m, x: (
                h := m.a(x),
                m.head(F.relu(h + m.shift) + F.relu(m.b(h) + h) + m.shift + m.a(x)),
            )[1],
            a=conv(1, 5),
            b=conv(5, 1),
            shift=nn.Parameter(torch.linspace(-1, 1, 5).view(1, 5, 1, 1)),
            head=Head(5),
        ),
        images,
        "Parameter",
        None,
    ),
    "sum with a number": (
        lambda: Net(lambda m, x: m.head(F.relu(m.a(x) + 0.3)), a=conv(1, 5), head=Head(5)),
        images,
        "Convolution",
        None,
    ),
    "sum of another dtype": (
        lambda: Net(
            lambda m, x: m.head((x.double().expand(-1, 5, -1, -1) + m.a(x)).to(x.dtype)),
            a=conv(1, 5),
            head=Head(5),
        ),
        images,
        "Convolution",
        None,
    ),
    "identity block": (
        block(
            lambda m, x: (
                h := m.relu(m.stem(x)),
                m.head(m.up(m.relu(m.b2(m.c2(m.relu(m.c1(h)))) + h))),
            )[1],
            **NARROW,
            b2=lambda: norm(4),
        ),
        images,
        "Convolution",
        6,
    ),
    "identity block, x + out": (
        block(
            lambda m, x: (h := m.stem(x), m.head(m.up(F.relu(h + m.c2(F.relu(m.c1(h)))))))[1],
            **NARROW,
        ),
        images,
        "Convolution",
        6,
    ),
    "shortcut first": (
        block(
            lambda m, x: (
                h := m.stem(x),
                s := m.bs(m.short(h)),
                m.head(m.relu(m.b2(m.c2(m.relu(m.b1(m.c1(h))))) + s)),
            )[2],
            **STRIDED,
            **SHORTCUT,
        ),
        images,
        "Convolution",
        "Module",
    ),
    "shortcut last": (
        block(
            lambda m, x: (
                h := m.stem(x),
                m.head(m.relu(m.b2(m.c2(m.relu(m.b1(m.c1(h))))) + m.bs(m.short(h)))),
            )[1],
            **STRIDED,
            **SHORTCUT,
        ),
        images,
        "Convolution",
        "Module",
    ),
    "shortcut padded": (block(padded, **STRIDED), images, "Convolution", "Module"),
    "pre-activation": (
        block(preactivation, **STRIDED, **SHORTCUT, b0=lambda: norm(4)),
        images,
        "Convolution",
        None,
    ),
    "flattened by view": (
        lambda: Net(
            lambda m, x: (h := F.relu(m.d(m.c(x))), m.out(h.view(h.size(0), -1)))[1],
            c=conv(1, 3),
            d=conv(3, 3),
            out=nn.Linear(147, 3),
        ),
        images,
        "Convolution",
        None,
    ),
    "viewed as": (
        lambda: Net(
            lambda m, x: m.out(F.relu(m.d(m.c(x))).view_as(x.expand(-1, 3, -1, -1).flatten(1))),
            c=conv(1, 3),
            d=conv(3, 3),
            out=nn.Linear(147, 3),
        ),
        images,
        "Convolution",
        None,
    ),
    "scale and table": (
        lambda: Net(
            lambda m, x: m.out(F.relu(m.a(x * m.scale)) + m.table[: x.shape[-1], :4].sum(0)),
            a=nn.Linear(70, 4),
            out=nn.Linear(4, 3),
            scale=nn.Parameter(torch.tensor(0.8)),
            table=nn.Parameter(torch.linspace(-1, 1, 350).view(70, 5)),
        ),
        vectors(70),
        "Parameter",
        "AffineLinear",
    ),
    "dropout, layer norm": (
        stack(
            lambda: nn.Linear(70, 6),
            nn.Dropout,
            lambda: nn.LayerNorm(6),
            nn.ELU,
            lambda: nn.Linear(6, 3),
        ),
        vectors(70),
        "AffineLinear",
        None,
    ),
    "group norm": (
        first(lambda: nn.GroupNorm(1, 5), nn.ReLU),
        images,
        "Convolution",
        None,
    ),
    "relu6, leaky": (
        first(nn.ReLU6, lambda: conv(5, 5), lambda: nn.LeakyReLU(inplace=True)),
        images,
        "Generic",
        None,
    ),
    "attention": (
        lambda: Net(
            lambda m, x: (
                h := m.embed(x.long()) + m.place,
                h := h + m.attend(m.norm(h), m.norm(h), m.norm(h), need_weights=False)[0],
                m.out(h.mean(1)),
            )[2],
            embed=nn.Embedding(5, 8),
            place=nn.Parameter(torch.linspace(-1, 1, 48).view(6, 8)),
            attend=nn.MultiheadAttention(8, 2, batch_first=True),
            norm=nn.LayerNorm(8),
            out=nn.Linear(8, 3),
        ),
        lambda: (torch.from_numpy(np.random.default_rng(4).integers(0, 5, (9, 6))), images()[1]),
        "Parameter",
        None,
    ),
    "transformer layer": (
        lambda: Net(
            lambda m, x: m.out(m.layer(x.unflatten(1, (5, 4))).mean(1)),
            layer=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            out=nn.Linear(4, 3),
        ),
        vectors(20),
        "Module",
        None,
    ),
    "weight norm": (
        stack(
            lambda: nn.utils.parametrizations.weight_norm(nn.Linear(70, 6)),
            nn.ReLU,
            lambda: nn.Linear(6, 3),
        ),
        vectors(70),
        "Module",
        "AffineLinear",
    ),
    "spectral norm of a convolution and of a norm": (
        first(
            lambda: nn.utils.parametrizations.spectral_norm(conv(5, 5)),
            lambda: nn.utils.parametrize.register_parametrization(norm(5), "weight", nn.Tanh()),
            lambda: conv(5, 5),
            lambda: nn.utils.parametrize.register_parametrization(norm(5), "weight", nn.Tanh()),
        ),
        images,
        "Module",
        None,
    ),
}
