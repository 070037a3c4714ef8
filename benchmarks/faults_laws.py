"""Do the laws of our sources hold on many more cases than the test suite draws?

    python benchmarks/faults_laws.py --count 1000 --seed 1

Every law of ``docs/laws.md`` whose test draws its cases, with ``--count`` examples each (those that a law
excludes do not count). A Markdown table on standard output, one line a law on standard error as it is done;
exit status 1 if a law failed. What failed is printed with the example that hypothesis found.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import pytest  # noqa: E402
from named_laws import Law, laws  # noqa: E402


class Counted:
    """A pytest plugin: more examples of every property, and how many of them ran to the end."""

    def __init__(self, count: int, chosen: list[Law]) -> None:
        self.count, self.laws = count, {law.node: law for law in chosen}
        self.examples: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.skipped: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Ask for more examples, and count those that pass."""
        from hypothesis import HealthCheck, settings  # pytest rewrites it: not before it runs

        for item in items:
            function = getattr(item.obj, "__func__", item.obj)
            node = item.nodeid.removeprefix("tests/").partition("[")[0]
            if node not in self.laws or not hasattr(function, "hypothesis"):
                continue
            inner = function.hypothesis.inner_test
            function.hypothesis.inner_test = self._noting(node, inner)
            # The settings of a test that has some cannot be replaced through hypothesis' public names.
            function._hypothesis_internal_use_settings = settings(
                function._hypothesis_internal_use_settings,
                derandomize=False,
                max_examples=self.count,
                suppress_health_check=list(HealthCheck),
            )

    def _noting(self, node: str, inner: Any) -> Any:
        @functools.wraps(inner)
        def noted(*args: Any, **kwargs: Any) -> None:
            inner(*args, **kwargs)
            self.examples[node] += 1

        return noted

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the outcome, and tell it."""
        node = report.nodeid.removeprefix("tests/").partition("[")[0]
        self.seconds[node] += report.duration
        if report.skipped:
            self.skipped.add(node)
        if report.failed:
            self.failed[node] = report.longreprtext
        if report.when == "teardown":
            state = "FAILED" if node in self.failed else "ok"
            done = (
                f"{self.examples[node]:7d} examples {self.seconds[node]:7.1f} s  {state:6s} {node}"
            )
            print(done, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=50, help="examples of each law")
    parser.add_argument("--seed", type=int, default=0, help="of the examples")
    parser.add_argument("--json", type=Path, help="file for the rows of the table")
    parser.add_argument("--only", default="", help="part of the names of the tests to run")
    options = parser.parse_args()
    chosen = [law for law in laws() if not law.cases and options.only in law.node]
    if not chosen:
        parser.error(f"no law's test has {options.only!r} in its name")
    found = Counted(options.count, chosen)
    begin = time.monotonic()
    os.chdir(ROOT)
    words = ["-q", "-s", "--tb=no", "-p", "no:cacheprovider", "-o", "timeout=0"]
    nodes = [f"tests/{law.node}" for law in chosen]
    with contextlib.redirect_stdout(sys.stderr):
        words += [f"--hypothesis-seed={options.seed}", *nodes]
        status = pytest.main(words, plugins=[found])
    rows = [row_of(law, found) for law in chosen]
    print(table(rows, options.count, options.seed, time.monotonic() - begin))
    for text in found.failed.values():
        print(f"\n{text}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    sys.exit(1 if found.failed or status not in (0, 1) else 0)


def row_of(law: Law, found: Counted) -> dict[str, Any]:
    """The outcome of one law."""
    ran = found.examples[law.node]
    return {
        "section": law.section,
        "law": law.text,
        "test": law.node,
        "examples": ran,
        "failures": int(law.node in found.failed),
        "skipped": law.node in found.skipped or not (ran or law.node in found.failed),
        "seconds": round(found.seconds[law.node], 1),
    }


def table(rows: list[dict[str, Any]], count: int, seed: int, seconds: float) -> str:
    """Markdown: a row for each law, and a sentence of what was asked for."""
    lines = ["| Law | Examples | Failures |", "|---|---:|---:|"]
    for row in rows:
        outcome = "skipped" if row["skipped"] else f"{row['failures']}"
        lines.append(f"| {row['section']}: {row['law']} | {row['examples']} | {outcome} |")
    total, failed = (sum(row[name] for row in rows) for name in ("examples", "failures"))
    lines.append(
        f"\n{len(rows)} laws, {total} examples ({count} asked for of each, seed {seed}), "
        f"{failed} failed; {seconds / 60:.0f} minutes on one thread."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
