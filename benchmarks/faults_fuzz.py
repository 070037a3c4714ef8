"""Damaged and hostile files for every reader: how many were accepted, refused, or came to anything else.

    python benchmarks/faults_fuzz.py --count 1000
    python benchmarks/faults_fuzz.py --count 100000 --state FOLDER      # adds up over interrupted runs

An input is a small whole file after one to sixteen damages, by its number: the same number, the same bytes. A reader
may accept it or refuse it with one line of our own. All else is a failure: another error, a message of several
lines, a warning, a crash, 10 s of computing, 1 GiB of memory, a file opened outside of the folder, a process, a
socket, code that is run. Children read, so that crashes are seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from fuzzing import running  # noqa: E402


def main() -> int:
    """Run, print the table, and say whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--readers", nargs="*", default=[""], help="parts of their names")
    parser.add_argument(
        "--without", nargs="*", default=[], help="parts of names of readers to leave out"
    )
    parser.add_argument("--state", type=Path, help="folder where counts are kept and added to")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop in between after this long"
    )
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    parser.add_argument("--table", action="store_true", help="show what was counted; run nothing")
    given = parser.parse_args()
    chosen = [
        t
        for t in running.targets()
        if any(part in t.name for part in given.readers)
        and not any(part in t.name for part in given.without)
    ]
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as unnamed:
        folder = given.state or Path(unnamed)
        rounds = (
            [given.count]
            if given.minutes == float("inf")
            else range(1000, given.count + 1000, 1000)
        )
        for count in rounds if not given.table else ():
            for target in chosen:
                if time.monotonic() < end:
                    running.advance(target, folder, min(count, given.count), _told)
        found = [(target, running.kept(folder, target)) for target in chosen]
    print(running.table(found))
    failed = 0
    for target, counts in found:
        for kind, one in sorted(counts.failures.items()):
            print(
                f"{target.name}: {len(one['inputs'])} x {kind}, inputs {one['inputs'][:3]}: {one['text']!r}",
                file=sys.stderr,
            )
            failed += len(one["inputs"])
    if given.json:
        document = {target.name: counts.as_dict() for target, counts in found}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


def _told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
