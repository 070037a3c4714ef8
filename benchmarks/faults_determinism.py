"""What comes to the same bits: again, in small groups, resumed, on 2 and 3 ranks, with 2 threads.

    python benchmarks/faults_determinism.py                 # everything: 46 subjects, half an hour
    python benchmarks/faults_determinism.py --count 5       # every ninth of them

All is compared with one process of one thread. ``same bits``: every number, text and byte is equal. A number: the
largest difference of what a reader looks at (losses, eigenvalues, values of measures, weights), relative to the
largest of its kind, where only rounding is promised. Exit status 1 where something is not as promised.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from determinism import functions, learning  # noqa: E402
from determinism.lab import CONDITIONS, SUBJECTS, Conditions, compute, verdict  # noqa: E402

__all__ = ["functions", "learning"]


def main() -> int:
    """Run, print the table, and say whether all is as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=len(SUBJECTS), help="subjects, spread evenly")
    parser.add_argument("--only", default="", help="part of the names of the subjects")
    parser.add_argument("--json", type=Path, help="file to write the cells to")
    given = parser.parse_args()
    found = [name for name in SUBJECTS if given.only in name]
    names = found[:: max(1, len(found) // max(given.count, 1))][: given.count]
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    failed = 0
    with tempfile.TemporaryDirectory() as unnamed:
        place = Path(unnamed)
        _tell(f"{len(names)} subjects, one process of one thread")
        base = compute(place / "base", Conditions(), names)
        for condition, how in CONDITIONS.items():
            some = [name for name in names if condition in SUBJECTS[name].conditions]
            _tell(f"{condition}: {len(some)} subjects")
            if not some:
                continue
            other = compute(place / condition.replace(" ", "-"), how, some)
            for name in some:
                text, good = verdict(SUBJECTS[name], condition, base[name], other[name])
                cells[name][condition] = text if good else f"**{text}**"
                failed += not good
                if not good:
                    _tell(f"FAILED {name}, {condition}: {text}")
    print("| | " + " | ".join(CONDITIONS) + " |\n|" + " --- |" * (len(CONDITIONS) + 1))
    for name, row in cells.items():
        print(f"| {name} | " + " | ".join(row.get(c, "") for c in CONDITIONS) + " |")
    if given.json:
        given.json.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
