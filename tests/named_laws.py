"""The table of laws in the documentation, for the test that checks it and the script that runs it."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "laws.md"

_NAMED = re.compile(r"^`([\w/]+\.py)::([\w:]+)`( \(cases\))?$")


@dataclass(frozen=True)
class Law:
    """A row of the table.

    Attributes:
        section: the heading that it stands under.
        text: the law.
        source: where it comes from.
        file: of the test, below ``tests/``.
        test: its name there, with its class.
        cases: whether the test takes chosen cases instead of drawing them.
    """

    section: str
    text: str
    source: str
    file: str
    test: str
    cases: bool

    @property
    def node(self) -> str:
        """What pytest calls the test, below ``tests/``."""
        return f"{self.file}::{self.test}"


def laws(page: Path = PAGE) -> list[Law]:
    """Every row of every table of the page.

    Raises:
        ValueError: a row without a law, a source or a test.
    """
    found, section = [], ""
    for line in page.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        if not line.startswith("|") or line.startswith(("| Law", "|---")):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = _NAMED.match(cells[-1])
        if len(cells) != 3 or not all(cells) or named is None:
            raise ValueError(f"a row of {page.name} is not a law, a source and a test: {line!r}")
        found.append(Law(section, cells[0], cells[1], named[1], named[2], bool(named[3])))
    return found


@functools.cache
def functions_in(file: Path) -> dict[str, bool]:
    """Tests of a file by name, with their class, and whether they draw their cases."""

    def functions(body: list[ast.stmt], before: str) -> dict[str, bool]:
        made: dict[str, bool] = {}
        for node in body:
            if isinstance(node, ast.ClassDef):
                made |= functions(node.body, f"{before}{node.name}::")
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                decorators = [ast.unparse(d) for d in node.decorator_list]
                made[before + node.name] = any(d.startswith("given(") for d in decorators)
        return made

    return functions(ast.parse(file.read_text()).body, "")
