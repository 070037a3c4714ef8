"""What the documents say: their links, their code, and the commands they name."""

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
GENERATED = ("_build", "_gallery", "_notebooks")
COMMAND = re.compile(r"^(?:\$ )?(landscape|sharpmaml) ")

_reader = MarkdownIt("commonmark").enable("table")


def documents():
    """All Markdown that a person reads, without what the site generates."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.md")]
    return sorted(p for p in found if not set(GENERATED) & set(p.relative_to(ROOT).parts))


def name(path):
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Code:
    """A piece of code of a document: ``language`` of a block, or None within a line."""

    text: str
    language: str | None


def _tokens(path):
    for token in _reader.parse(path.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def links(path):
    """Targets of links and pictures, as they are written."""
    for token in _tokens(path):
        for attribute in ("href", "src"):
            if target := token.attrGet(attribute):
                yield target


def code(path):
    """All code of a document, in blocks and within lines."""
    for token in _tokens(path):
        if token.type in ("fence", "code_block"):
            yield Code(token.content, token.info.strip() if token.type == "fence" else "")
        elif token.type == "code_inline":
            yield Code(token.content, None)


def anchors(path):
    """Headings as the forge and the site name them in links."""
    tokens = list(_tokens(path))
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(t.content for t in content.children if t.content)
            yield re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def commands(text):
    """The command lines of ours in a piece of code: continued lines joined, comments off.

    >>> commands("landscape surface A --points 25  # quick\\nls\\nlandscape surface|hessian A ...")
    [['landscape', 'surface', 'A', '--points', '25'], ['landscape', 'surface', 'A'], ['landscape', 'hessian', 'A']]
    """
    joined = re.sub(r"\\\n\s*|\n(?=\s+--)", " ", text)
    found = []
    for line in map(str.strip, joined.splitlines()):
        if not COMMAND.match(line):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        words = [w for w in takewhile(lambda w: w != "|", words) if w != "..."]
        if len(words) > 1:
            found += [[words[0], choice, *words[2:]] for choice in words[1].split("|")]
    return found
