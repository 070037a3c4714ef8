"""Which entry of a checkpoint holds the weights, and what the wrappers put before their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from landscape.wording import listed

WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "model_ema",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.")
_DEPTH = 4  # wrappers within wrappers; a file may also hold itself
_ENTRIES = 10_000  # that are looked through for weights
_NOT_WEIGHTS = ("optim", "opt", "scaler", "sched", "hyper", "hparams", "args", "rng", "callbacks")


def _name(key: Any) -> str:
    # A file may use whole tensors and storages as keys: their texts are long, and come with warnings.
    return str(key) if isinstance(key, str | int | float) else f"<{type(key).__name__}>"


def entries(content: Any) -> list[tuple[str, Any]]:
    """Names and values of a mapping or list, whatever the file made of its methods."""
    if isinstance(content, dict):
        return [(_name(key), value) for key, value in dict.items(content)]
    if isinstance(content, Mapping):
        return [(_name(key), content[key]) for key in content]
    if isinstance(content, list | tuple):
        return [(str(i), value) for i, value in enumerate(content)]
    return []


def tensors_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a mapping by name; none of other things.

    >>> tensors_of({"epoch": 3})
    {}
    """
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in entries(content) if isinstance(value, Tensor)}


def candidates(content: Any) -> dict[str, int]:
    """Entries that might be the weights: their dotted keys, with how many numbers they hold.

    The key of the content itself is empty. States of optimizers and the like are left out.

    >>> import torch
    >>> candidates({"epoch": 3, "ema": {"w": torch.ones(2)}})
    {'ema': 2}
    """
    found = {}
    for key, value in _walk(content):
        held = tensors_of(value)
        if held:
            found[key] = sum(Tensor.numel(tensor) for tensor in held.values())
    return found


def find(content: Any, key: str | None = None) -> tuple[dict[str, Any], str]:
    """The entry that holds the weights, and the dotted key that leads to it.

    ``state_dict``, ``model_state_dict``, ``model``, ``net``, ``ema``, ... come first, also one within
    another; then the mapping that holds the most numbers, unless several entries might be meant.

    Args:
        content: what a file holds.
        key: the entry that the user names.

    Raises:
        ValueError: no tensors by name, no such entry, or several that might be meant.
    """
    if key is not None:
        return _chosen(content, key)
    wrapped = _unwrap(content)
    if wrapped[0] or not isinstance(content, Mapping):
        return wrapped
    found = candidates(content)
    inner = {name: size for name, size in found.items() if name}
    if inner and found.get("", 0) < max(inner.values()):
        if len(inner) > 1:
            raise ValueError(f"may mean {_names(inner)}: choose one with --key")
        name = next(iter(inner))
        return dict(entries(_at(content, name))), name
    return (dict(entries(content)), "") if found else ({}, "")


def strip(names: list[str]) -> str:
    """The prefix of wrappers that all names share: ``module.``, ``_orig_mod.``, ``model.`` in any order.

    >>> strip(["module.model.a", "module.model.b"]), strip(["model.a", "b"])
    ('module.model.', '')
    """
    removed = ""
    while True:
        for prefix in PREFIXES:
            if names and all(name.startswith(removed + prefix) for name in names):
                removed += prefix
                break
        else:
            return removed


def _walk(content: Any) -> Iterator[tuple[str, Any]]:
    """Mappings within mappings and lists, each once, the nearest first."""
    queue: list[tuple[str, Any, int]] = [("", content, 0)]
    seen: set[int] = set()
    for key, value, depth in queue:  # grows while it is walked
        if id(value) in seen or len(seen) > _ENTRIES:
            continue
        seen.add(id(value))
        yield key, value
        for name, inner in entries(value) if depth < _DEPTH else []:
            if not isinstance(inner, Mapping | list | tuple):
                continue
            if depth == 0 and name.lower().startswith(_NOT_WEIGHTS):
                continue
            queue.append((f"{key}.{name}" if key else name, inner, depth + 1))


def _unwrap(content: Any, depth: int = _DEPTH) -> tuple[dict[str, Any], str]:
    """The first wrapper that leads to tensors."""
    if not isinstance(content, Mapping) or not depth:
        return {}, ""
    held = dict(entries(content))
    for key in WRAPPERS:
        inner = held.get(key)
        found, deeper = _unwrap(inner, depth - 1)
        if not found and tensors_of(inner):
            found, deeper = dict(entries(inner)), ""
        if found:
            return found, f"{key}.{deeper}" if deeper else key
    return {}, ""


def _chosen(content: Any, key: str) -> tuple[dict[str, Any], str]:
    found = candidates(content)
    inside = _at(content, key)
    if tensors_of(inside):
        return dict(entries(inside)), key
    deeper, rest = _unwrap(inside)
    if deeper:
        return deeper, f"{key}.{rest}"
    raise ValueError(
        f"has no weights under {key!r}: expected {_names(found) or 'another file, it has none'}"
    )


def _at(content: Any, key: str) -> Any:
    """The entry at a dotted key; names may hold dots themselves."""
    for name, value in entries(content):
        if name == key:
            return value
        if key.startswith(f"{name}.") and isinstance(value, Mapping | list | tuple):
            found = _at(value, key[len(name) + 1 :])
            if found is not None:
                return found
    return None


def _names(found: dict[str, int]) -> str:
    return listed([repr(name) if name else "the file itself" for name in found])
