"""Would the tests notice? Small faults planted in the numerical core, one at a time, and what the tests say.

    pip install -e '.[dev,mutation]'
    python benchmarks/mutation.py run --results mutation.jsonl small             # every fault of the small modules
    python benchmarks/mutation.py run --results mutation.jsonl --sample 400      # and 400 of each package
    python benchmarks/mutation.py table --results mutation.jsonl --out docs/results/mutation.md
    python benchmarks/mutation.py survivors --results mutation.jsonl landscape/space.py    # with their keys

The faults are those of mutmut's operators (``benchmarks/mutants.py`` says what is left out); each is planted in a
forked process that has everything imported (``benchmarks/mutation_runs.py``), and the tests that reach its
statement run until one fails, those first that kill most in a second. Results are kept one a line, by the text of
the function before and after: a run that was stopped goes on, and a survivor is tried again on new tests only.
Run it in a copy of the tree (``git archive HEAD | tar x -C COPY``) when others edit the tree meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutants import Mutant
    from mutation_runs import Server, Test

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = ROOT / "benchmarks" / "mutation_survivors.txt"
SMALL = {
    "space": ["landscape/space.py"],
    "directions": ["landscape/directions.py", "landscape/normalization.py"],
    "surface": ["landscape/surface.py", "landscape/grid.py"],
    "perturb": ["sharpmaml/perturb.py", "sharpmaml/ascent.py"],
    "adapt": ["sharpmaml/adapt.py", "sharpmaml/inner.py"],
    "meta": ["sharpmaml/meta.py"],
}
LARGE = {
    "spectra": "landscape/spectra",
    "krylov": "landscape/krylov",
    "sharpness": "landscape/sharpness",
}
NO_NUMBERS = {  # layout of text, and which file holds what
    "landscape/sharpness/text.py",
    "landscape/sharpness/resume.py",
}
LEFT_OUT = (  # how files of tests begin that are of commands, pages, processes: too slow for thousands of faults
    "test_cli", "test_figures", "test_ranks", "test_parallel", "test_console", "test_networks", "test_wild",
    "test_datasets", "test_inspect", "test_unpickling", "test_source", "test_training", "test_study", "test_compare.",
    "test_topology", "test_checkpoint", "test_runs", "test_presets", "test_sharpness_page", "test_faults", "test_fuzz",
)  # fmt: skip
SLOW_FOLDERS = ("plot", "exchange", "reproduction", "data")
MARK = "<!-- made by benchmarks/mutation.py; the lines below are replaced -->"
CAUGHT = ("killed", "timeout")

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table", "survivors"))
    parser.add_argument(
        "files", nargs="*", help="files, names of packages or small modules, or 'small'; else all"
    )
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"))
    parser.add_argument("--out", type=Path, help="file whose part below the mark is replaced")
    parser.add_argument("--sample", type=int, help="so many of each package; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests for one fault")
    parser.add_argument(
        "--tests", nargs="+", help="files of tests; default: all that are fast enough"
    )
    parser.add_argument(
        "--only-known", action="store_true", help="try survivors again, nothing new"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    options = parser.parse_intermixed_args()
    options.results = options.results.resolve()
    groups = chosen(options.files)
    if options.what == "run":
        run(groups, options)
        return
    records, mutants = read(options.results), wanted(groups, None, 0)
    if options.what == "survivors":
        for key, line in survivors(mutants, records):
            print(key, line)
        return
    listed = "\n".join(f"- {line}" for _, line in survivors(mutants, records))
    text = f"{table(mutants, records)}\n\n## Survivors\n\n{listed}\n"
    if options.out:
        head = options.out.read_text().partition(MARK)[0]
        options.out.write_text(f"{head}{MARK}\n\n{text}")
    else:
        print(text)


def chosen(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the name of their group."""
    large = {
        name: sorted(
            file
            for path in (ROOT / folder).glob("*.py")
            if (file := str(path.relative_to(ROOT))) not in NO_NUMBERS
        )
        for name, folder in LARGE.items()
    }
    every = {**SMALL, **large}
    if not names:
        return every
    groups: dict[str, list[str]] = {}
    for name in names:
        if name == "small":
            groups |= SMALL
        elif name in every:
            groups[name] = every[name]
        else:
            groups[name] = [name]
    return groups


def ordered(mutants: Iterable[Mutant], seed: int) -> list[Mutant]:
    """A random order that does not depend on the other mutants: a larger sample holds the smaller one."""
    return sorted(mutants, key=lambda m: sha256(f"{seed}/{m.key}".encode()).digest())


def wanted(groups: dict[str, list[str]], sample: int | None, seed: int) -> dict[str, list[Mutant]]:
    from mutants import mutants_of

    found = {}
    for name, files in groups.items():
        every = ordered((m for file in files for m in mutants_of(ROOT, file)), seed)
        found[name] = every if sample is None or name in SMALL else every[:sample]
    return found


def test_files() -> list[str]:
    """Files of tests, and the modules of the core for their doctests."""
    paths = []
    for folder in ("tests/landscape", "tests/sharpmaml"):
        for path in sorted((ROOT / folder).rglob("test_*.py")):
            slow = any(part in SLOW_FOLDERS for part in path.relative_to(ROOT / folder).parts)
            if not slow and not path.name.startswith(LEFT_OUT):
                paths.append(str(path.relative_to(ROOT)))
    return paths + [file for files in chosen(()).values() for file in files]


def run(groups: dict[str, list[str]], options: argparse.Namespace) -> None:
    from mutation_runs import serve

    mutants = wanted(groups, options.sample, options.seed)
    every = [file for files in chosen(()).values() for file in files]
    cache = options.results.with_suffix(".tests.json")

    def work(server: Server) -> None:
        server.say(f"{len(server.items)} tests, {sum(map(len, mutants.values()))} mutants")
        tests = server.mapped(every, cache)
        Campaign(server, tests, options).run([m for group in mutants.values() for m in group])

    log = options.results.with_suffix(".log")
    if status := serve(work, ROOT, options.tests or test_files(), log):
        raise SystemExit(f"pytest ended with {status}: see {log}")


class Campaign:
    """Mutants one after another, a few at a time."""

    def __init__(self, server: Server, tests: list[Test], options: argparse.Namespace) -> None:
        from mutation_runs import digest

        self.server, self.options = server, options
        self.records = read(options.results)
        self.kills = Counter(record["killer"] for record in self.records.values())
        self.versions = {file: digest(ROOT / file) for file in {test.file for test in tests}}
        self.at: dict[tuple[str, int], list[Test]] = {}
        for test in tests:
            for file, lines in test.lines.items():
                for line in lines:
                    self.at.setdefault((file, line), []).append(test)
        self.functions = server.functions(file for files in chosen(()).values() for file in files)
        self.stop = time.monotonic() + 60 * options.minutes

    def reaching(self, mutant: Mutant) -> list[Test]:
        """The tests that run its statement."""
        lines = range(mutant.span[0], mutant.span[1] + 1)
        found = {test.name: test for line in lines for test in self.at.get((mutant.file, line), ())}
        return list(found.values())

    def run(self, mutants: list[Mutant]) -> None:
        """Try those that are not known yet."""
        self.control(mutants)
        left = iter(self.jobs(mutants))
        running: dict[Any, tuple[Mutant, list[Test], list[str]]] = {}
        done, total = 0, len(mutants)
        while True:
            while len(running) < self.options.workers and time.monotonic() < self.stop:
                job = next(left, None)
                if job is None:
                    break
                mutant, tests, seen = job
                child = self.server.try_mutant(mutant, tests, self.functions[mutant.file])
                running[child] = job
            if not running:
                break
            for child in list(running):
                if not child.poll():
                    if time.monotonic() < child.deadline:
                        continue
                    child.kill()
                mutant, tests, seen = running.pop(child)
                self.keep(mutant, child.outcome(), time.monotonic() - child.started, tests, seen)
                done += 1
                if done % 50 == 0:
                    caught = sum(r["status"] in CAUGHT for r in self.records.values())
                    self.server.say(
                        f"{done} tried of {total}; {caught} caught of {len(self.records)} on record"
                    )
            time.sleep(0.01)

    def jobs(self, mutants: list[Mutant]) -> Iterator[tuple[Mutant, list[Test], list[str]]]:
        """What is left to try: the mutant, the tests in their order, and the files it has survived already."""
        from mutation_runs import best_first

        for mutant in mutants:
            record = self.records.get(mutant.key)
            if record["status"] in (*CAUGHT, "invalid") if record else self.options.only_known:
                continue
            seen = record["seen"] if record else []
            tests = [t for t in self.reaching(mutant) if self.version(t) not in seen]
            if tests:
                yield mutant, best_first(tests, self.kills, self.options.budget), seen
            elif not record:
                self.keep(mutant, {"status": "no tests", "killer": ""}, 0.0, [], [])

    def control(self, mutants: list[Mutant]) -> None:
        """Without a fault nothing may fail, in whatever order the tests run."""
        from mutation_runs import best_first

        for mutant in mutants[:: max(1, len(mutants) // 3)]:
            if not (tests := best_first(self.reaching(mutant), self.kills, self.options.budget)):
                continue
            child = self.server.try_mutant(None, tests, {})
            child.wait(30 * self.options.budget + 120)
            if child.outcome()["status"] != "survived":
                raise SystemExit(f"fails without a fault: {child.outcome()}")

    def version(self, test: Test) -> str:
        """The file of a test, as it is now."""
        return f"{test.file}@{self.versions[test.file]}"

    def keep(
        self, mutant: Mutant, outcome: Record, seconds: float, tests: list[Test], seen: list[str]
    ) -> None:
        """Put an outcome on record."""
        self.kills[outcome["killer"]] += 1
        record = {
            "key": mutant.key, "file": mutant.file, "function": mutant.function, "line": mutant.line,
            "before": mutant.before, "after": mutant.after, "seconds": round(seconds, 2),
            "tests": len(tests), "seen": [], **outcome,
        }  # fmt: skip
        if outcome["status"] == "survived":
            record["seen"] = sorted({*seen, *map(self.version, tests)})
        self.records[mutant.key] = record
        with self.options.results.open("a") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Record]:
    """The last word on each mutant; a line that was torn is not one."""
    records = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        records[record["key"]] = record
    return records


def explanations() -> dict[str, str]:
    lines = EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else []
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def table(groups: dict[str, list[Mutant]], records: dict[str, Record]) -> str:
    """One row a file, a total for each group with its 95 % interval."""
    why = explanations()
    rows = [
        "| module | mutants | tried | killed | timeout | survived | no tests | killed, % | 95 % interval | explained |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, mutants in groups.items():
        files = sorted({m.file for m in mutants})
        for file in files if len(files) > 1 else ():
            rows.append(_row(f"`{file}`", [m.key for m in mutants if m.file == file], records, why))
        label = f"**{name}**" if len(files) > 1 else f"**{name}** (`{files[0]}`)"
        rows.append(_row(label, [m.key for m in mutants], records, why))
    return "\n".join(rows)


def _row(label: str, keys: list[str], records: dict[str, Record], why: dict[str, str]) -> str:
    from scipy.stats import binomtest

    tried = {key: records[key] for key in keys if key in records}
    status = Counter(record["status"] for record in tried.values())
    invalid = status.pop("invalid", 0)
    caught, count = sum(status[s] for s in CAUGHT), sum(status.values())
    explained = sum(record["status"] not in CAUGHT and key in why for key, record in tried.items())
    rate = interval = "–"
    if count:
        rate = f"{100 * caught / count:.1f}"
        if count < len(keys) - invalid:
            ends = binomtest(caught, count).proportion_ci()
            interval = f"{100 * ends.low:.1f} to {100 * ends.high:.1f}"
    cells = [
        label, len(keys) - invalid, count, status["killed"], status["timeout"], status["survived"],
        status["no tests"], rate, interval, explained,
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def survivors(
    groups: dict[str, list[Mutant]], records: dict[str, Record]
) -> Iterator[tuple[str, str]]:
    """The key of each survivor, and where it is, what was changed, and why that stands where it is known."""
    why = explanations()
    for mutants in groups.values():
        for mutant in sorted(mutants, key=lambda m: (m.file, m.line)):
            record = records.get(mutant.key)
            if record and record["status"] not in (*CAUGHT, "invalid"):
                change = f"`{mutant.before}` → `{mutant.after}`"
                reason = why.get(mutant.key, f"**{record['status']}**, not looked at")
                yield (
                    mutant.key,
                    f"{mutant.file}:{mutant.line}, `{mutant.function}`: {change}: {reason}",
                )


if __name__ == "__main__":
    sys.path.append(sys.path.pop(0))  # beside this file lies another coverage.py than the tool's
    main()
