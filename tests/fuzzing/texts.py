"""Damage to JSON, TOML and lists in text that keeps most of their form."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from fuzzing import raw

DEEP = "§deep§"  # stands for a list of lists of lists, which json.dumps itself could not write

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", "x", "NaN", "Infinity", "0", "1e5", "\n", "\x1b[31mred",
    "\u2028", "\ud800", "é" * 300, "A" * 20_000, "../../../etc/passwd", "/etc/passwd", "os.system", "__class__",
    [], {}, [[]], [1, 2, 3], [None], ["a"], [[1, 2], [3]], {"a": 1}, {"": {}}, {"schema": 1}, DEEP,
)  # fmt: skip
"""Values put where another one belongs."""


def json_damaged(rng: random.Random, data: bytes) -> bytes:
    """A JSON document with some values, keys or lists exchanged."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return raw.damaged(rng, data, data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        document = _exchanged(rng, document)
    return _as_text(rng, document)


def jsonl_damaged(rng: random.Random, data: bytes) -> bytes:
    """Lines of JSON: one of them damaged, repeated, cut or left out."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines.insert(at, rng.choice(lines))
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] = raw.damaged(rng, lines[at] or b" ", data)
    else:
        lines[at] = json_damaged(rng, lines[at] or b"{}").replace(b"\n", b" ")
    return b"\n".join(lines)


def _exchanged(rng: random.Random, document: Any) -> Any:
    """The document with one place of it changed."""
    holders: list[tuple[Any, Any]] = []
    queue = [document]
    for one in queue:  # grows while it is walked
        keys = (
            list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        )
        holders += [(one, key) for key in keys]
        queue += [one[key] for key in keys if isinstance(one[key], dict | list)]
        if len(holders) > 5000:
            break
    if not holders or rng.random() < 0.02:
        return _odd(rng)
    holder, key = rng.choice(holders)
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "schema", "\n", "A" * 3000, *map(str, holder)))] = holder.pop(
            key
        )
    elif kind == 2:
        other, name = rng.choice(holders)
        holder[key], other[name] = other[name], holder[key]
        if _loops(document):
            return _odd(rng)
    elif kind == 3:
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key])[:1000]))
    elif kind == 4 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice((0, 2, 50))
    else:
        holder[key] = _odd(rng)
    return document


def _odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))  # lists among them are changed later


def _loops(document: Any, above: tuple[int, ...] = ()) -> bool:
    if id(document) in above:
        return True
    inner = (
        document.values()
        if isinstance(document, dict)
        else document
        if isinstance(document, list)
        else ()
    )
    return any(_loops(one, (*above, id(document))) for one in inner if isinstance(one, dict | list))


def _as_text(rng: random.Random, document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    depth = rng.choice((30, 900, 5000, 200_000))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth).replace(f'"{DEEP}"', "[]")
    kind = rng.randrange(40)
    if kind == 0:
        text = text[:-1]
    elif kind == 1:
        text += rng.choice(("x", "\x00", text))
    elif kind == 2 and text[:1] == "{" and len(text) > 2:
        text = text[:-1] + "," + text[1:]  # every key twice
    encoding = rng.choice(("utf-8",) * 40 + ("utf-16", "latin-1", "utf-8-sig"))
    return text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


_TOML = (
    "1", "-1", "0", "true", "1e400", "nan", "inf", "-inf", '""', "'x'", "[]", "{}", "[[]]", "{a = 1}", "1979-05-27",
    "1979-05-27T07:32:00Z", "0x" + "f" * 400, "9" * 5000, '"\\u0000"', '"\\u001b[31m"', "'''\n\n'''", "[" * 500,
    "[" * 100_000, "[" * 300 + "]" * 300, "{a=" * 300 + "1" + "}" * 300, '"' + "A" * 20_000 + '"', "+nan", "07", "_1",
)  # fmt: skip
_HEADS = (
    "[a]", "[[a]]", "[data_options]", "[data_options.a.b]", ".".join("a" * 2000) + " = 1", "a.b.c = 1", "= 1", "seed",
    '"\\n" = 1', "[" + ".".join("a" * 2000) + "]", "\x00", "#" + "x" * 9999, "method = 'maml'", "__init__ = 1",
)  # fmt: skip


def toml_damaged(rng: random.Random, data: bytes) -> bytes:
    """TOML with values, lines or tables exchanged."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        name, equals, _ = lines[at].partition("=")
        kind = rng.randrange(6)
        if kind == 0:
            lines.insert(at, rng.choice(lines))
        elif kind == 1:
            lines.insert(at, rng.choice(_HEADS))
        elif kind == 2:
            other = rng.choice(lines).partition("=")[2]
            lines[at] = f"{name}={other}"
        elif equals:
            lines[at] = f"{name}= {rng.choice(_TOML)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def list_damaged(rng: random.Random, data: bytes) -> bytes:
    """A list or csv with fields and lines exchanged."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(lines))
        fields = lines[at].split(b",")
        kind = rng.randrange(6)
        if kind == 0:
            lines.insert(at, rng.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            fields[rng.randrange(len(fields))] = rng.choice(rng.choice(lines).split(b","))
            lines[at] = b",".join(fields)
        elif kind == 3:
            lines[at] = rng.choice(
                (b'"' + lines[at], lines[at] * 3, b"," + lines[at], lines[at] + b",x")
            )
        else:
            fields[rng.randrange(len(fields))] = rng.choice(
                (*raw.WORDS, b"x" * 200_000 if kind == 5 else b"x")
            )
            lines[at] = b",".join(fields)
    return b"\n".join(lines)
