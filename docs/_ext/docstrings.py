"""Docstrings are written to be read in a terminal; here they become reStructuredText."""

from __future__ import annotations

import re
from typing import Any

_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
_SPECIAL = re.compile(r"(?<!\\)([|*])")


def escaped(line: str) -> str:
    r"""``|λ|`` and ``θ*`` are mathematics, neither substitutions nor emphasis.

    >>> escaped("the largest |λ| of `H` and ``|w|``, θ* and *flatter*")
    'the largest \\|λ\\| of `H` and ``|w|``, θ\\* and *flatter*'
    """
    parts = _LITERAL.split(line)
    for i in range(0, len(parts), 2):
        words = re.split(r"(?<!\w)(\*[\w][^*]*[\w]\*)(?!\w)", parts[i])  # *emphasis* is kept
        words[::2] = [_SPECIAL.sub(r"\\\1", word) for word in words[::2]]
        parts[i] = "".join(words)
    return "".join(parts)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            lines[i] = escaped(line)


def _short_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Names are documented where they are imported from, and referred to where they are written."""
    package, _, name = str(node.get("reftarget", "")).partition(".")
    if node.get("refdomain") != "py" or package not in ("landscape", "sharpmaml"):
        return None
    short = f"{package}.{name.rpartition('.')[2]}"
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", short, node, contnode
    )


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    app.connect("missing-reference", _short_name)
    return {"parallel_read_safe": True}
