"""Everything that is done to the toolkit on purpose, and what it came to: writes docs/results/reliability.md.

    python benchmarks/faults.py --state FOLDER            # small counts, an hour or two
    python benchmarks/faults.py --state FOLDER --full     # the counts of the page, a day

Each part is a script of its own (``benchmarks/faults_*.py``) and prints a table. What is finished is kept in
``--state`` with the command that made it and the machine, and taken from there by the next run: delete a file to
make it again. The page is written from what is there. Exit status 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "results" / "reliability.md"


@dataclass(frozen=True)
class Part:
    """A script, its title and words on the page, and how much it does."""

    name: str
    title: str
    words: str
    small: tuple[str, ...]
    full: tuple[str, ...]
    state: str = ""  # the option that keeps what it has done; {} is its file


PARTS = (
    Part(
        "training", "Training",
        "Four small runs (Adam, SGD with a cosine, learned rates, early stopping, an ascent that "
        "remembers), killed and resumed "
        "until they come to their end, then held against runs left alone: weights, optimizer, "
        "records, best checkpoint.",
        ("--count", "12"), ("--count", "200", "--turns"),
    ),
    Part(
        "ranks", "Ranks of torchrun",
        "One rank is killed or stopped in the middle of a training or of a surface. The others end with "
        "one line; the same command continues. A stopped rank counts as lost after 30 s; torchrun then "
        "waits 30 s more before it kills it.",
        (), (),
    ),
    Part(
        "analysis", "Surfaces, Hessians, sharpness",
        "The commands `landscape surface` (all points, and refined), `hessian` and `sharpness`. "
        "*Told and lost* is work that "
        "progress had shown and that was not there after the fault; *begun and lost* the work under way: points of "
        "one round (0.2 s), a Hessian product, a measure. A resumed run must give the same file, page and "
        "standard output, bit for bit, but for times and for what this very process paid.",
        ("--count", "12"), ("--count", "200"), "--state",
    ),
    Part(
        "fuzz", "Readers of files",
        "Damaged and hostile files for every reader. A reader accepts, or refuses with one line of "
        "our own; all else is a "
        "failure: another error, a crash, 10 s, 1 GiB, a path outside of the folder, a process, a "
        "socket, code that runs. Inputs that failed are read again, and then the others.",
        ("--count", "1000"), ("--count", "100000"), "--state",
    ),
    Part(
        "laws", "Laws",
        "The laws of [laws](../laws.md), each on random cases drawn by hypothesis.",
        ("--count", "200"), ("--count", "1000"),
    ),
    Part(
        "differential", "Against independent implementations",
        "Random small networks of the layers that users use; everything computed by the package and by deliberately "
        "naive code (`tests/naive*.py`), in float64.",
        ("--count", "50"), ("--count", "200"), "--json",
    ),
    Part(
        "determinism", "The same bits",
        "What is equal to the bit when it is run again, in other groups, resumed, on 2 and 3 ranks, "
        "with 2 threads; see "
        "[determinism](../determinism.md).",
        ("--count", "5"), (),
    ),
)  # fmt: skip


def measured(part: Part, state: Path, full: bool) -> bool:
    """Run a part unless its table is kept; whether it went well."""
    kept = state / f"{part.name}.json"
    if kept.exists():
        return not json.loads(kept.read_text())["status"]
    asked = list(part.full if full else part.small)
    command = [sys.executable, str(HERE / f"faults_{part.name}.py"), *asked]
    if part.state:
        command += [part.state, str(state / f"{part.name}-state")]
    print(f"== {part.title}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.stdout.strip():
        document = {
            "command": " ".join(["python", f"benchmarks/faults_{part.name}.py", *asked]),
            "status": done.returncode,
            "table": done.stdout.strip(),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
        }
        kept.write_text(json.dumps(document, indent=1))
    return not done.returncode


def machine() -> str:
    """Processor, system and versions."""
    found = platform.processor() or platform.machine()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ] if Path("/proc/cpuinfo").exists() else []  # fmt: skip
    return (
        f"{names[0] if names else found}, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def page(state: Path, before: str) -> str:
    """What is kept, as Markdown, and what stood on the page ``before`` of parts that are not."""
    sections = [section.partition("\n") for section in before.split("\n## ")[1:]]
    stood = {title: text.strip("\n") for title, _, text in sections}
    lines = [
        "# Reliability", "",
        "What the toolkit does when it is killed, starved, fed damaged files, and asked twice; and "
        "whether it agrees with "
        "others. Made by `python benchmarks/faults.py`; faults in other processes are made by "
        "`tests/faulty_io.c`, which "
        "sees every operation on a file, those of HDF5 and safetensors too.", "",
    ]  # fmt: skip
    for part in PARTS:
        kept = state / f"{part.name}.json"
        if not kept.exists():
            lines += [f"## {part.title}", "", stood[part.title], ""] if part.title in stood else []
            continue
        found = json.loads(kept.read_text())
        words = f"`{found['command']}`, {found['date']}, {found['machine']}."
        lines += [f"## {part.title}", "", part.words, "", words, "", found["table"], ""]
        if found["status"]:
            lines += ["**Something was not as it should be: see the table.**", ""]
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--full", action="store_true", help="the counts of the page")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in PARTS], default=None)
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)
    chosen = [p for p in PARTS if asked.only is None or p.name in asked.only]
    well = [measured(part, asked.state, asked.full) for part in chosen]
    before = asked.out.read_text(encoding="utf-8") if asked.out.exists() else ""
    asked.out.write_text(page(asked.state, before), encoding="utf-8")
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
