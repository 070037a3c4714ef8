"""Install the wheel into empty environments, with the lowest and the newest allowed dependencies, and use it.

    python benchmarks/installs.py --work FOLDER [--sets lowest newest] [--python PYTHON] [--torch VERSION]

"lowest" is every direct dependency at the lower bound of ``pyproject.toml``, what these bring at whatever the installer
takes; "newest" is without any bound but ours. ``--torch`` replaces torch's version in both, for machines that get
torch from elsewhere. In each environment: all modules and public names are imported, the commands are used on a small
run, and a fast part of the tests is run against what was installed. Finished installations are kept in FOLDER.
Markdown on standard output, exit status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("pytest", "pytest-timeout", "hypothesis")
TESTS = (
    "test_space.py", "test_directions.py", "test_surface.py", "test_holding.py", "test_journal.py",
    "test_writing.py", "test_public.py", "test_cli.py",
)  # fmt: skip
TRAIN = ("sharpmaml", "train", "--data", "sinusoid", "--inner-rate", "0.01", "--iterations", "3")
TASKS = ("--device", "cpu", "--episodes", "2")
STEPS = {
    "train": (*TRAIN, "--out", "run", "--device", "cpu", "--quiet"),
    "train another": (*TRAIN, "--seed", "1", "--out", "another", "--device", "cpu", "--quiet"),
    "surface": ("landscape", "surface", "run", "--points", "5", "--out", "surface.nc", *TASKS),
    "hessian": ("landscape", "hessian", "run", "--out", "hessian.html", *TASKS),
    "sharpness": ("landscape", "sharpness", "run", "--budget", "5s", "--out", "s.json", *TASKS),
    "evaluate": ("sharpmaml", "evaluate", "run", "--episodes", "4", "--device", "cpu"),
    "page": ("landscape", "compare", "run", "another", "--points", "3", "--out", "p.html", *TASKS),
}
IMPORTS = """
import importlib, pkgutil, sys, landscape, sharpmaml
for package in (landscape, sharpmaml):
    assert package.__file__.startswith(sys.prefix), package.__file__
    for name in package.__all__:
        getattr(package, name)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.rpartition(".")[2] != "__main__":
            importlib.import_module(found.name)
"""


@dataclass
class Outcome:
    """What one environment came to."""

    name: str
    python: str = ""
    versions: str = ""
    failed: list[str] = field(default_factory=list)
    tests: str = "not run"
    seconds: float = 0.0


def requirements(kind: str, torch: str | None) -> Iterator[str]:
    """Direct dependencies and the tools of the tests, as the installer is asked for them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dev = {Requirement(r).name: r for r in project["optional-dependencies"]["dev"]}
    for text in (*project["dependencies"], *(dev[tool] for tool in TOOLS)):
        wanted = Requirement(text)
        if wanted.name == "torch" and torch:
            yield f"torch=={torch}"
        elif kind == "newest":
            yield text
        else:
            (bound,) = (s.version for s in wanted.specifier if s.operator == ">=")
            yield f"{wanted.name}=={bound}"


def ran(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """A command, in an environment that knows nothing of this checkout."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    mine |= {"OMP_NUM_THREADS": "1", "PATH": f"{Path(words[0]).parent}{os.pathsep}{mine['PATH']}"}
    kwargs = {"cwd": place, "env": mine, "text": True, "errors": "replace"}
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    )


def told(words: str) -> None:
    """Progress."""
    print(words, file=sys.stderr, flush=True)


def environment(place: Path, python: str, wanted: list[str], wheel: Path) -> None:
    """An environment with the wheel as its users have it; what is there already is kept."""
    note = place / "installed.txt"
    if not (note.exists() and note.read_text() == "\n".join(wanted)):
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        done = ran([*pip, *wanted, str(wheel)], ROOT.parent)
        if done.returncode:
            raise SystemExit(f"cannot install {' '.join(wanted)}:\n{done.stdout[-3000:]}")
        note.write_text("\n".join(wanted))
    pip = [str(place / "bin" / "python"), "-m", "pip"]
    ran([*pip, "install", "--quiet", "--force-reinstall", "--no-deps", str(wheel)], ROOT.parent)


def versions(place: Path) -> str:
    """Of the direct dependencies, in their order."""
    names = [Requirement(r).name for r in requirements("newest", None)]
    names = [name for name in names if name not in TOOLS]
    code = f"from importlib.metadata import version\nfor n in {names!r}: print(n, version(n))"
    return (
        ran([str(place / "bin" / "python"), "-c", code], place).stdout.strip().replace("\n", ", ")
    )


def used(place: Path, outcome: Outcome) -> None:
    """Fill in what fails of importing, of the commands, and of the tests."""
    bin_, work = place / "bin", place / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    checks = {"dependencies agree": [str(bin_ / "python"), "-m", "pip", "check"]}
    checks |= {"imports": [str(bin_ / "python"), "-c", IMPORTS]}
    checks |= {f"{p} --help": [str(bin_ / p), "--help"] for p in ("landscape", "sharpmaml")}
    checks |= {name: [str(bin_ / program), *words] for name, (program, *words) in STEPS.items()}
    for name, words in checks.items():
        begun = time.monotonic()
        done = ran(words, work)
        told(f"  {name}: {done.returncode} in {time.monotonic() - begun:.0f} s")
        if done.returncode:
            outcome.failed.append(name)
            told(done.stdout[-3000:])
    keep = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests", work / "tests", ignore=keep)
    shutil.copy(ROOT / "pyproject.toml", work)
    files = [f"tests/landscape/{name}" for name in TESTS]
    done = ran([str(bin_ / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], work)
    outcome.tests = done.stdout.strip().rpartition("\n")[2]
    if done.returncode:
        outcome.failed.append("tests")
        told(done.stdout[-6000:])


def tried(kind: str, asked: argparse.Namespace, wheel: Path) -> Outcome:
    """One environment from nothing to its tests."""
    begun = time.monotonic()
    code = "import platform; print(platform.python_version())"
    version = ran([asked.python, "-c", code], ROOT.parent).stdout.strip()
    outcome = Outcome(kind, version)
    place = asked.work / f"{kind}-{version}"
    told(f"{kind}, Python {version}")
    environment(place, asked.python, list(requirements(kind, asked.torch)), wheel)
    outcome.versions = versions(place)
    used(place, outcome)
    outcome.seconds = time.monotonic() - begun
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Markdown."""
    lines = ["| set | Python | versions | commands | tests | seconds |", "| --- " * 6 + "|"]
    for o in outcomes:
        verdict = f"**failed: {', '.join(o.failed)}**" if o.failed else "all pass"
        tests = re.sub(r" in [\d.]+s.*", "", o.tests.strip("= "))
        lines.append(
            f"| {o.name} | {o.python} | {o.versions} | {verdict} | {tests} | {o.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--sets", nargs="+", default=["lowest", "newest"])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments")
    parser.add_argument("--torch", default=None, help="version of torch, in place of the bound's")
    asked = parser.parse_args()
    asked.work = asked.work.resolve()
    built = asked.work / "dist"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=sys.stderr)
    (wheel,) = built.glob("*.whl")
    outcomes = [tried(kind, asked, wheel) for kind in asked.sets]
    print(table(outcomes))
    return int(any(o.failed for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
