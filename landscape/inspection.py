"""What a checkpoint file holds: statistics of every tensor, and what lies beside the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import hypot, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.checkpoint import Weights, read_content, weights_in
from landscape.guesses import Guess, guess, suggested_flags
from landscape.state_dicts import entries
from landscape.wording import printable

_CHUNK = 1 << 20  # numbers looked at together
_BESIDE = 40  # other entries that are told
_HYPER = ("lr", "momentum", "nesterov", "betas", "alpha", "eps", "weight_decay", "amsgrad", "rho")


@dataclass(frozen=True)
class Row:
    """One tensor.

    Attributes:
        name: as stored, without the prefix.
        shape: its sizes.
        dtype: without ``torch.``.
        norm: of all its numbers, ``nan`` where one is not finite.
        mean: of the finite ones.
        std: of the finite ones, over their count.
        low: the least finite one; the least modulus of complex ones.
        high: the greatest.
        zeros: share that is exactly zero.
        nan: how many are not a number.
        infinite: how many are infinite.
        same_as: an earlier name for the same bytes and shape; empty when there is none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    nan: int
    infinite: int
    same_as: str = ""


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_checkpoint` found.

    Attributes:
        weights: the tensors.
        rows: one for each, in the order of the file.
        beside: other entries of the file, each in a few words.
        optimizer: type (a guess) and settings of the optimizer, when the file keeps its state.
        guesses: what the names and shapes suggest.
        flags: ``--model``, ``--data``, ... that the next command may need, guessed.
    """

    weights: Weights
    rows: tuple[Row, ...]
    beside: dict[str, str]
    optimizer: dict[str, Any]
    guesses: tuple[Guess, ...]
    flags: tuple[str, ...]

    @property
    def unsound(self) -> tuple[str, ...]:
        """Names of tensors with numbers that are not finite."""
        return tuple(row.name for row in self.rows if row.nan or row.infinite)

    @property
    def dtypes(self) -> dict[str, int]:
        """Numbers by dtype, tied ones once."""
        count: Counter[str] = Counter()
        for row, tensor in zip(self.rows, self.weights.tensors.values(), strict=True):
            count[row.dtype] += 0 if row.same_as else tensor.numel()
        return dict(count)

    @property
    def tied(self) -> dict[str, str]:
        """Names of tensors that repeat an earlier one, and that one's name."""
        return {row.name: row.same_as for row in self.rows if row.same_as}


def inspect_checkpoint(
    path: str | Path,
    *,
    key: str | None = None,
    allow: Collection[str] = (),
    trust_pickle: bool = False,
) -> Inspection:
    """Read a checkpoint file and describe what it holds; arguments as of :func:`read_weights`.

    Tensors are looked at one after another and a piece at a time, so that files larger than the memory
    can be read.

    Raises:
        ValueError: see :func:`landscape.checkpoint.read_weights`.
    """
    content = read_content(Path(path), allow=allow, trust_pickle=trust_pickle)
    weights = weights_in(content, Path(path), key)
    first: dict[tuple[Any, ...], str] = {}
    rows = []
    for name, tensor in weights.tensors.items():
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        twin = first.setdefault(place, name) if tensor.numel() else name
        rows.append(statistics(name, tensor, "" if twin == name else twin))
    return Inspection(
        weights,
        tuple(rows),
        _beside(content, weights),
        _optimizer(content),
        guess(weights, content),
        suggested_flags(weights, content),
    )


def statistics(name: str, tensor: Tensor, same_as: str = "") -> Row:
    """The row of one tensor, in float64 whatever its dtype.

    >>> row = statistics("w", torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
    >>> row.norm, row.mean, row.zeros, row.high
    (5.0, 1.75, 0.5, 4.0)
    """
    count = zeros = nan = infinite = 0
    norm = total = mean = spread = 0.0
    low, high = float("inf"), float("-inf")
    for piece in _pieces(tensor):
        values = piece.abs().double() if piece.is_complex() else piece.double()
        finite = values[values.isfinite()]
        nan += int(values.isnan().sum())
        infinite += int(values.isinf().sum())
        zeros += int((values == 0).sum())
        if not finite.numel():
            continue
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        norm = hypot(norm, float(torch.linalg.vector_norm(finite)))
        # Chan, Golub and LeVeque (1983): two means and two sums of squares make one of each.
        there = float(finite.mean())
        shift, joined = there - mean, count + finite.numel()
        spread += float((finite - there).square().sum())
        spread += shift * shift * count * finite.numel() / joined
        mean += shift * finite.numel() / joined
        count = joined
    total = tensor.numel()
    lost = float("nan")
    return Row(
        name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."),
        norm=lost if nan or infinite else norm,
        mean=mean if count else lost,
        std=sqrt(spread / count) if count else lost,
        low=low if count else lost,
        high=high if count else lost,
        zeros=zeros / total if total else 0.0,
        nan=nan, infinite=infinite, same_as=same_as,
    )  # fmt: skip


def _pieces(tensor: Tensor) -> list[Tensor]:
    """Views of at most a piece's size where the memory order allows, without a copy of the whole."""
    if tensor.numel() <= _CHUNK or not tensor.dim():
        return [tensor] if tensor.numel() else []
    if tensor.is_contiguous():
        return _cut(tensor.view(-1), _CHUNK)
    rows = _CHUNK * tensor.shape[0] // tensor.numel()
    if rows:
        return _cut(tensor, rows)
    return [piece for part in tensor for piece in _pieces(part)]


def _cut(tensor: Tensor, rows: int) -> list[Tensor]:
    return [tensor[start : start + rows] for start in range(0, len(tensor), rows)]


def _beside(content: Any, weights: Weights) -> dict[str, str]:
    """Other entries of the file; of what holds the weights, those that are no tensors."""
    held = dict(entries(content))
    used = weights.key.split(".")[0]
    names = [name for name in held if name != used] if weights.key else weights.ignored
    return {printable(name): _told(held.get(name)) for name in names[:_BESIDE]}


def _told(value: Any) -> str:
    """An entry in a few words: its value when it is small, else its kind and size."""
    if isinstance(value, Tensor):
        number = value.is_floating_point() or value.dtype in (torch.int64, torch.int32, torch.bool)
        if number and Tensor.numel(value) == 1 and value.layout == torch.strided and value.is_cpu:
            return str(Tensor.detach(value).tolist())
        return f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{len(entries(value))} entries"
    if isinstance(value, list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, bool | int | float | str | type(None)):
        return printable(value if isinstance(value, str) else repr(value), 60)
    return type(value).__name__


def _optimizer(content: Any) -> dict[str, Any]:
    """Type and settings of the first optimizer whose state the file keeps."""
    for name, value in entries(content):
        states = value if isinstance(value, list | tuple) else [value]
        for state in states[:4]:
            held = dict(entries(state)) if isinstance(state, Mapping) else {}
            groups = held.get("param_groups")
            if isinstance(groups, list) and groups and isinstance(groups[0], Mapping):
                group = dict(entries(groups[0]))
                settings = {
                    word: group[word]
                    for word in _HYPER
                    if isinstance(group.get(word), int | float | tuple)
                }
                settings = {word: _small(value) for word, value in settings.items()}
                return {"entry": name, "type": _rule(group), "groups": len(groups), **settings}
    return {}


def _small(value: Any) -> Any:
    return value if isinstance(value, int | float) else printable(str(tuple(value[:2])), 40)


def _rule(group: Mapping[str, Any]) -> str:
    """The type of optimizer that has these settings, as PyTorch names them."""
    if "betas" in group:
        decoupled = group.get("decoupled_weight_decay")
        return "Adam or AdamW" if decoupled is None else "AdamW" if decoupled else "Adam"
    if "alpha" in group and "centered" in group:
        return "RMSprop"
    if "lr_decay" in group:
        return "Adagrad"
    if "momentum" in group:
        return "SGD"
    return "unknown"
