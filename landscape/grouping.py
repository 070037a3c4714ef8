"""What a "filter" is: the table from module types and parameter names to groups of entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from torch import nn

_HEAD_COUNTS = ("num_heads", "n_head", "n_heads", "num_attention_heads", "heads")
_HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim")
_QUERIES = ("q_proj", "query", "to_q", "q")


@dataclass(frozen=True)
class Grouping:
    """How the entries of one tensor are grouped: the units that filter normalization scales.

    Attributes:
        rule: name of the rule that made it, for tables and provenance.
        view: a shape to see the tensor as, of as many entries.
        within: dimensions of ``view`` along which entries share a group; the others count the groups.

    Raises:
        ValueError: ``within`` names a dimension twice or one that ``view`` has not.

    >>> heads = Grouping("head", view=(4, 8, 32), within=(1, 2))  # a (32, 32) matrix by 4 heads
    >>> heads.groups, heads.entries
    (4, 256)
    """

    rule: str
    view: tuple[int, ...]
    within: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.within)) < len(self.within) or set(self.within) - set(
            range(len(self.view))
        ):
            raise ValueError(
                f"within is {self.within}: expected different dimensions of view={self.view}, "
                f"each from 0 to {len(self.view) - 1}"
            )

    @property
    def groups(self) -> int:
        """Number of groups."""
        return math.prod(self.view) // max(self.entries, 1)

    @property
    def entries(self) -> int:
        """Number of entries in each group."""
        return math.prod(self.view[dim] for dim in self.within)

    @property
    def is_whole(self) -> bool:
        """True if the tensor is not divided: one group by its rule, not by chance of its shape."""
        return len(self.within) == len(self.view)


Rule = str | Callable[[nn.Module, str, tuple[int, ...]], Grouping]
"""A name in :data:`RULES`, or ``(module that holds the tensor, its name there, shape) -> Grouping``."""


@dataclass(frozen=True)
class Place:
    """A parameter and where it sits: dotted name, shape, the module that holds it, and that one's parent."""

    name: str
    shape: tuple[int, ...]
    module: nn.Module
    parent: nn.Module | None = None

    @property
    def output(self) -> int:
        """The dimension of a matrix that counts outputs: 1 for Hugging Face ``Conv1D``, else 0."""
        return 1 if _is_a(self.module, "Conv1D") else 0

    def attribute(self, names: Sequence[str]) -> int | None:
        """The first of these attributes that is a positive int, of the module or of its parent."""
        for host in (self.module, self.parent):
            for name in names:
                value = getattr(host, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None


def whole(shape: tuple[int, ...], rule: str = "whole") -> Grouping:
    """The tensor as one group.

    >>> whole((3, 2))
    Grouping(rule='whole', view=(3, 2), within=(0, 1))
    """
    return _by(rule, shape)


def _by(rule: str, view: tuple[int, ...], *counted: int) -> Grouping:
    return Grouping(rule, view, tuple(dim for dim in range(len(view)) if dim not in counted))


def _row(place: Place) -> Grouping | None:
    dims = len(place.shape)
    return _by("row", place.shape, *range(dims - 1)) if dims else None


def _column(place: Place) -> Grouping | None:
    return _by("column", place.shape, 1) if len(place.shape) == 2 else None


def _slice(rule: str, dim: int, least: int) -> Callable[[Place], Grouping | None]:
    return lambda place: _by(rule, place.shape, dim) if len(place.shape) >= least else None


def _transposed(place: Place) -> Grouping | None:
    # The weight is (in, out / groups, kernel...): a channel of one group is not that of the next.
    groups, outputs = (getattr(place.module, name, None) for name in ("groups", "out_channels"))
    if len(place.shape) < 3 or not groups or outputs != place.shape[1] * groups:
        return None
    if groups == 1:
        return _by("transposed", place.shape, 1)
    inputs, *rest = place.shape
    return _by("transposed", (groups, inputs // groups, *rest), 0, 2)


def _head(place: Place) -> Grouping | None:
    if len(place.shape) != 2:
        return None
    axis = place.output
    size, count = place.attribute(_HEAD_SIZES), place.attribute(_HEAD_COUNTS)
    if size is None and count is not None:
        # Keys and values may have fewer heads than queries, of the same size.
        queries = [getattr(getattr(place.parent, name, None), "weight", None) for name in _QUERIES]
        shapes = [query.shape for query in queries if query is not None] or [place.shape]
        size = shapes[0][axis] // count
    if not size or place.shape[axis] % size:
        return None
    return _split("head", place.shape, axis, (place.shape[axis] // size, size))


def _head_columns(place: Place) -> Grouping | None:
    if len(place.shape) != 2:
        return None
    axis = 1 - place.output
    width, count = place.shape[axis], place.attribute(_HEAD_COUNTS)
    size = place.attribute(_HEAD_SIZES) or (width // count if count else 0)
    if not size or width != (count or width // size) * size:
        return None
    return _split("head_columns", place.shape, axis, (width // size, size))


def _fused(rule: str, heads_first: bool) -> Callable[[Place], Grouping | None]:
    def fused(place: Place) -> Grouping | None:
        count = place.attribute(_HEAD_COUNTS)
        if len(place.shape) != 2 or count is None:
            return None
        axis = place.output
        size = place.attribute(_HEAD_SIZES) or place.shape[1 - axis] // count
        if not size or place.shape[axis] != 3 * count * size:  # fewer keys and values than queries
            return None
        parts = (count, 3, size) if heads_first else (3, count, size)
        return _split(rule, place.shape, axis, parts)

    return fused


def _split(rule: str, shape: tuple[int, ...], axis: int, parts: tuple[int, ...]) -> Grouping:
    """Dimension ``axis`` seen as ``parts``; all of them but the last count the groups."""
    view = (*shape[:axis], *parts, *shape[axis + 1 :])
    return _by(rule, view, *range(axis, axis + len(parts) - 1))


RULES: Mapping[str, Callable[[Place], Grouping | None]] = MappingProxyType(
    {
        "whole": lambda place: whole(place.shape),
        "row": _row,
        "column": _column,
        "slice0": _slice("slice0", 0, least=1),
        "slice1": _slice("slice1", 1, least=2),
        "transposed": _transposed,
        "head": _head,
        "head_columns": _head_columns,
        "qkv_head": _fused("qkv_head", heads_first=False),
        "head_qkv": _fused("head_qkv", heads_first=True),
        "rank_rows": _slice("rank_rows", 0, least=2),
        "rank_columns": _slice("rank_columns", 1, least=2),
    }
)
"""The named rules, one group each:

================  ==============================================================================
``whole``         the whole tensor
``row``           entries along the last dimension: an output neuron, a token
``column``        a column of a matrix
``slice0``        all entries of one index of dimension 0: an output channel
``slice1``        all entries of one index of dimension 1
``transposed``    an output channel of a transposed convolution, grouped or not
``head``          the outputs of one attention head
``head_columns``  the inputs of an output projection that one head writes
``qkv_head``      the outputs of one head of queries, keys or values, laid out (3, heads, size)
``head_qkv``      the same, laid out (heads, 3, size): equal groups in another order
``rank_rows``     a rank component of a LoRA factor A ``(rank, inputs)``
``rank_columns``  a rank component of a LoRA factor B ``(outputs, rank)``
================  ==============================================================================

The head rules read the number of heads, or their size, from the attributes of the module that holds
the tensor or of its parent (``num_heads``, ``n_head``, ``head_dim``, ...). A rule answers ``None``
for a tensor that it does not fit.
"""

TABLE: Mapping[type[nn.Module] | str, str] = MappingProxyType(
    {
        # A -> cA, B -> B/c leaves the network as it is, one rank component at a time.
        "*.lora_[aA].*": "rank_rows",
        "*.lora_[bB].*": "rank_columns",
        "*.lora_down.*": "rank_rows",
        "*.lora_up.*": "rank_columns",
        "*.lora_embedding_A.*": "rank_rows",
        "*.lora_embedding_B.*": "rank_columns",
        "*.in_proj_weight": "qkv_head",
        "*.[qkv]_proj_weight": "head",
        "*.query_key_value.weight": "head_qkv",
        "*.qkv.weight": "qkv_head",
        "*.to_qkv.weight": "qkv_head",
        "*.qkv_proj.weight": "qkv_head",
        "*.Wqkv.weight": "qkv_head",
        "*.in_proj.weight": "qkv_head",
        "*.c_attn.weight": "qkv_head",
        "*.[qkv]_proj.weight": "head",
        "*.to_[qkv].weight": "head",
        "*.[qkv].weight": "head",
        "*.query.weight": "head",
        "*.key.weight": "head",
        "*.value.weight": "head",
        "*.out_proj.weight": "head_columns",
        "*.o_proj.weight": "head_columns",
        "*.c_proj.weight": "head_columns",
        "*.attn.proj.weight": "head_columns",
        nn.Linear: "row",
        nn.Bilinear: "slice0",
        nn.Conv1d: "slice0",
        nn.Conv2d: "slice0",
        nn.Conv3d: "slice0",
        nn.ConvTranspose1d: "transposed",
        nn.ConvTranspose2d: "transposed",
        nn.ConvTranspose3d: "transposed",
        nn.Embedding: "row",
        nn.EmbeddingBag: "row",
        nn.RNNBase: "row",
        nn.RNNCellBase: "row",
        "Conv1D": "column",  # Hugging Face: a linear layer whose weight is (inputs, outputs)
    }
)
"""Which rule a tensor of two or more dimensions follows: the first key that matches and fits.

A key is a module class, the name of one, or a glob over dotted parameter names in which a leading
``*.`` and a trailing ``.*`` may stand for nothing. Where no key fits, a parameter of shape
``(1, tokens, width)`` goes by ``row`` and any other by ``slice0``. Tensors of fewer dimensions are
``whole``. Padding and unseen rows of an embedding have norm 0, so they do not move.
"""


def assign(
    places: Sequence[Place], groupings: Mapping[type[nn.Module] | str, Rule] | None = None
) -> tuple[Grouping, ...]:
    """The grouping of each parameter: the first of the user's entries that matches, else the table.

    Args:
        places: the parameters of one model.
        groupings: keys as in :data:`TABLE`, values a name in :data:`RULES` or a callable. A class,
            or the name of one, speaks of tensors of two or more dimensions; a glob of any.

    Raises:
        ValueError: an unknown rule, a text key that matches nothing, or a rule that does not fit.
    """
    user = groupings or {}
    for key, rule in user.items():
        if isinstance(rule, str) and rule not in RULES:
            raise ValueError(
                f"groupings[{key!r}] is {rule!r}: expected one of {', '.join(RULES)}, or a callable"
            )
        if isinstance(key, str) and not any(_matches(key, place) for place in places):
            raise ValueError(
                f"groupings key {key!r} matches no trainable parameter and no module class: "
                f"names look like {places[0].name!r}"
            )
    return tuple(_chosen(place, user) for place in places)


def _chosen(place: Place, user: Mapping[type[nn.Module] | str, Rule]) -> Grouping:
    for key, rule in user.items():
        if _matches(key, place):
            return _demanded(rule, place)
    if len(place.shape) < 2:
        return whole(place.shape)
    for key, name in TABLE.items():
        if _matches(key, place) and (found := RULES[name](place)) is not None:
            return found
    table_of_tokens = len(place.shape) == 3 and place.shape[0] == 1
    return _by("row", place.shape, 0, 1) if table_of_tokens else _by("slice0", place.shape, 0)


def _demanded(rule: Rule, place: Place) -> Grouping:
    if isinstance(rule, str):
        found = RULES[rule](place)
        if found is None:
            raise ValueError(
                f"rule {rule!r} does not fit {place.name!r} of shape {place.shape} in "
                f"{type(place.module).__name__}: choose another, or give a callable"
            )
        return found
    found = rule(place.module, place.name.rpartition(".")[2], place.shape)
    if not isinstance(found, Grouping) or math.prod(found.view) != math.prod(place.shape):
        raise ValueError(
            f"the callable for {place.name!r} gave {found!r}: expected a Grouping whose view has "
            f"the {math.prod(place.shape)} entries of shape {place.shape}"
        )
    return found


def _matches(key: type[nn.Module] | str, place: Place) -> bool:
    if _is_a(place.module, key) and len(place.shape) >= 2:
        return True
    return isinstance(key, str) and any(
        fnmatchcase(name, key) for name in (place.name, f".{place.name}", f".{place.name}.")
    )


def _is_a(module: nn.Module, kind: type[nn.Module] | str) -> bool:
    if isinstance(kind, str):
        return any(base.__name__ == kind for base in type(module).__mro__)
    return isinstance(module, kind)
