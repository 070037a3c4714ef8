"""Who draws a surface whose formula is known? The problems of the test suite, tried on us and on other tools.

    python benchmarks/truth.py --peers PEERS/bin/python --out docs/results/truth.md

Each tool runs in a process of its own, the others with the interpreter of their own environment
(``benchmarks/peers.txt``). Markdown on standard output, or into the table of the file ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = "<!-- made by benchmarks/truth.py; the lines below are replaced -->"
SIGNS = {"pass": "pass", "fail": "**fail**", "not offered": "–"}
OURS = "landscape"

Results = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--peers", help="the interpreter of the peers' environment; without it only ours"
    )
    parser.add_argument("--out", type=Path, help="file whose part below the mark is replaced")
    parser.add_argument("--tool", help="run the checks on this tool here and print JSON")
    options = parser.parse_args()
    if options.tool:
        print(json.dumps(checked(options.tool)))
        return
    results: Results = {OURS: child(sys.executable, OURS)}
    if options.peers:
        from peers import PEERS

        results |= {name: child(options.peers, name) for name in PEERS}
    text = page(results)
    if options.out:
        head = options.out.read_text().partition(MARK)[0]
        options.out.write_text(f"{head}{MARK}\n\n{text}")
    else:
        print(text)


def child(interpreter: str, name: str) -> dict[str, Any]:
    """The outcome of all checks on one tool, by that interpreter."""
    command = [interpreter, str(Path(__file__).resolve()), "--tool", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} could not be tried:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def checked(name: str) -> dict[str, Any]:
    """Run in the tool's own process."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import checks
    import torch
    from peers import PEERS, prepare

    if name == OURS:
        from ours import Landscape

        tool: Any = Landscape()
    else:
        prepare(name)
        tool = PEERS[name]
    return {"version": tool.version, "torch": torch.__version__, "checks": checks.run(tool)}


def page(results: Results) -> str:
    """The table and the reasons of what is no pass."""
    heads = [f"{name} {result['version']}" for name, result in results.items()]
    torches = ", ".join(sorted({result["torch"] for result in results.values()}))
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, torch {torches}, CPU, one thread.",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- |{' :-: |' * len(heads)}",
    ]
    titles = list(next(iter(results.values()))["checks"])
    for title in titles:
        cells = [SIGNS[result["checks"][title][0]] for result in results.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append("")
    for name, result in results.items():
        lines += [f"### {name} {result['version']}", ""]
        for title in titles:
            outcome, reason = result["checks"][title]
            if outcome != "pass":
                lines.append(f"- {title}: {SIGNS[outcome].replace('–', 'not offered')}; {reason}")
        if lines[-1] == "":
            lines.append("Everything passed.")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
