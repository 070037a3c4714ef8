"""Small networks of every awkward kind, with data, and their dense Hessians by plain double backward."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from problems import normal, seeded
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.data_objective import DataObjective

SIZES = (5, 3)  # examples a batch: the last is short


def integers(high: int, *shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


class CausalAttention(nn.Module):
    """Tokens -> logits of the next; the embedding is the head too where ``tied``."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(4, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(h).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(h + mixed.transpose(1, 2).flatten(2))


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, batch_first=True, activation="gelu")
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(4, 3, batch_first=True)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Partial(nn.Module):
    """A frozen layer, one that is never called, a parameter that enters linearly, active dropout layers."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.frozen(x))


class Keywords(nn.Module):
    """Takes a mapping and returns an object with ``logits``, one of the outputs a function of another."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor, mask: Tensor) -> SimpleNamespace:
        hidden = torch.tanh(self.body(inputs)) * mask
        return SimpleNamespace(logits=self.head(hidden), hidden=hidden)


def token_loss(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output.transpose(1, 2), y, reduction="none").mean(1)


def scalar_loss(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y)


def both_outputs(output: SimpleNamespace, y: Tensor) -> Tensor:
    return F.cross_entropy(output.logits, y, reduction="none") + output.hidden.square().sum(1)


def _pairs(x: Tensor, y: Tensor) -> list:
    return list(zip(x.split(SIZES), y.split(SIZES), strict=True))


def _vectors() -> list:
    return _pairs(normal(8, 4, seed=1), integers(3, 8, seed=2))


def _sequences() -> list:
    return _pairs(normal(8, 3, 4, seed=3), integers(3, 8, seed=4))


def _tokens() -> list:
    return _pairs(integers(5, 8, 4, seed=5), integers(5, 8, 4, seed=6))


def _mappings() -> list:
    return [{"inputs": x, "mask": (x > -1).double(), "labels": y} for x, y in _vectors()]


ZOO = {
    "sdpa": (lambda: CausalAttention(False), _tokens, token_loss),
    "tied": (lambda: CausalAttention(True), _tokens, token_loss),
    "multihead": (MultiHead, _sequences, "cross_entropy"),
    "encoder": (Encoder, _sequences, "cross_entropy"),
    "lstm": (lambda: Recurrent(nn.LSTM), _sequences, "cross_entropy"),
    "gru": (lambda: Recurrent(nn.GRU), _sequences, "cross_entropy"),
    "rnn": (lambda: Recurrent(nn.RNN), _sequences, "cross_entropy"),
    "partial": (Partial, _vectors, "cross_entropy"),
    "scalar": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), _vectors, scalar_loss),
    "keywords": (Keywords, _mappings, "cross_entropy"),
    "outputs": (Keywords, _mappings, both_outputs),
    "norms": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 3)),
        _vectors,
        "cross_entropy",
    ),
}


def model_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    return seeded(ZOO[name][0]).to(dtype).train()


def objective_of(
    name: str, dtype: torch.dtype = torch.float64, model: nn.Module | None = None, **options
) -> DataObjective:
    _, data, loss = ZOO[name]
    return DataObjective(model or model_of(name, dtype), data(), loss=loss, **options)


def dense(function, tensors: list[Tensor]) -> Tensor:
    """The Hessian of ``function()`` by these leaves, row by row with two backward passes."""
    with sdpa_kernel(SDPBackend.MATH):
        grads = torch.autograd.grad(function(), tensors, create_graph=True, allow_unused=True)
        flat = torch.cat(
            [
                (torch.zeros_like(t) if g is None else g).reshape(-1)
                for g, t in zip(grads, tensors, strict=True)
            ]
        )
        rows = []
        for entry in flat:
            made: tuple = (None,) * len(tensors)
            if entry.requires_grad:
                made = torch.autograd.grad(entry, tensors, retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(t) if m is None else m).reshape(-1)
                        for m, t in zip(made, tensors, strict=True)
                    ]
                )
            )
    return torch.stack(rows)


def plain_loss(name: str, model: nn.Module) -> Tensor:
    """The mean loss over all examples, without this package."""
    _, data, loss = ZOO[name]
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in data():
        if isinstance(batch, dict):
            y = batch["labels"]
            output = model(**{k: v for k, v in batch.items() if k != "labels"})
        else:
            output, y = model(batch[0]), batch[1]
        if loss == "cross_entropy":
            each = F.cross_entropy(getattr(output, "logits", output), y)
        else:
            each = loss(output, y).mean()
        total, count = total + each * len(y), count + len(y)
    return total / count


@cache
def dense_hessian(name: str) -> Tensor:
    model = model_of(name).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    return dense(lambda: plain_loss(name, model), trained)
