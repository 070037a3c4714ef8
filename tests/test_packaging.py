"""What is given to users: a wheel and an sdist that anyone can build again, with all that belongs in, no more."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PARTS = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
ALSO = ("pyproject.toml", ".gitignore", "CONTRIBUTING.md", ".ci/run")
SHIPPED = {".py", ".js", ".css", ".txt", ".typed"}
HOSTS = {
    "github.com",  # programs that are compared with, published data sets
    "raw.githubusercontent.com",
    "git-lfs.github.com",  # first line of a file that Git LFS has not fetched
    "git-lfs",
    "keepachangelog.com",
}
# Of the machine that something was written on, and of the ways packages came to it.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:root|work|opt|mnt|tmp|home/(?!somebody))/\w|\.py[e]nv\b|\bpy[p]i\.|pythonhost[e]d"
    r"|\bregistr[y]\.(?:npm|[a-z]+\.(?:com|org|io))|index-ur[l]|find-link[s]|artifactor[y]"
)


def copied(source, place):
    """The parts of the project that a build reads, without what git ignores."""
    ignored = shutil.ignore_patterns("__pycache__", "_build", "_gallery", "_notebooks", ".*cache")
    for part in (*PARTS, *ALSO):
        whole = place / part
        whole.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, whole, ignore=ignored)
        elif (source / part).exists():
            shutil.copy(source / part, whole)
    return place


def dressed(place, when, mode):
    """Other times and rights, and what lies about in the folder of someone who works in it."""
    for found in place.rglob("*"):
        found.chmod(mode | (0o100 if found.is_dir() else 0))
        os.utime(found, (when, when))
    for left in ("landscape/__pycache__/store.cpython-311.pyc", ".venv/secret.py", "runs/a.log"):
        (place / left).parent.mkdir(exist_ok=True, parents=True)
        (place / left).write_text(str(when))


def built(place, umask, seed):
    """``(wheel, sdist)``, as the build backend makes them in a process of its own."""
    mine = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    mine |= {"PYTHONHASHSEED": str(seed), "TZ": f"UTC+{seed}"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", "made"],
        cwd=place, env=mine, umask=umask, check=True, capture_output=True,
    )  # fmt: skip
    return next((place / "made").glob("*.whl")), next((place / "made").glob("*.tar.gz"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One state of the project; files of the checkout may change under the tests."""
    return copied(ROOT, tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def builds(tree, tmp_path_factory):
    made = []
    for name, when, mode, umask, seed in (
        ("first", 1_500_000_000, 0o644, 0o022, 1),
        ("another folder", 1_700_000_001, 0o660, 0o077, 9),
    ):
        place = copied(tree, tmp_path_factory.mktemp("copies") / name)
        dressed(place, when, mode)
        made.append(built(place, umask, seed))
    return made


@pytest.fixture(scope="module")
def wheel(builds):
    with zipfile.ZipFile(builds[0][0]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    (found,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(found))


@pytest.mark.parametrize("which", [0, 1], ids=["wheel", "sdist"])
def test_built_twice_is_the_same_to_the_byte(builds, which):
    first, second = (made[which] for made in builds)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_wheel_holds_the_packages_and_nothing_else(wheel, tree):
    held = {n for n in wheel.namelist() if ".dist-info/" not in n}
    files = [f for package in PACKAGES for f in (tree / package).rglob("*") if f.is_file()]
    assert held == {f.relative_to(tree).as_posix() for f in files if f.suffix in SHIPPED}
    assert {f.suffix for f in files} == SHIPPED, "a new kind of file: is it meant to be shipped?"
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    for name in held:
        assert wheel.read(name) == (tree / name).read_bytes(), name


def test_sdist_builds_the_same_wheel(builds, tmp_path):
    """What is given as source is all that the wheel needs."""
    with tarfile.open(builds[0][1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (place,) = tmp_path.iterdir()
    assert built(place, 0o022, 5)[0].read_bytes() == builds[0][0].read_bytes()


def test_sdist_holds_nothing_that_git_ignores(builds):
    with tarfile.open(builds[0][1]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    top = {name.split("/")[0] for name in names}
    assert top == {*PARTS, "pyproject.toml", ".gitignore", "PKG-INFO"}
    stray = [n for n in names if re.search(r"__pycache__|\.pyc$|/_build/|\.env\b|\.pem$|\.nc$", n)]
    assert not stray


def test_metadata_say_what_the_project_does(metadata, wheel):
    project = PROJECT["project"]
    assert metadata["Name"] == project["name"]
    assert metadata["Version"] == project["version"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras == set(project["optional-dependencies"])
    told = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    core = {str(r) for r in told if not r.marker}
    assert core == {str(Requirement(text)) for text in project["dependencies"]}
    (scripts,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    for name, target in project["scripts"].items():
        assert f"{name} = {target}" in wheel.read(scripts).decode()


@pytest.mark.parametrize("text", PROJECT["project"]["dependencies"])
def test_users_keep_the_choice_of_versions(text):
    """One lower bound, which installs.py tries; no upper one, no pin."""
    assert [s.operator for s in Requirement(text).specifier] == [">="]


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    found = [(canonicalize_name(name), version) for name, version in (x.split("==") for x in lines)]
    assert len(found) == len(dict(found)), "a package is pinned twice"
    return {name: Version(version) for name, version in found}


def needed(text, extras=()):
    """``(name, requirement)`` of a requirement, its own extras of ours resolved."""
    wanted = Requirement(text)
    if wanted.name == PROJECT["project"]["name"]:
        for extra in sorted(wanted.extras):
            for more in PROJECT["project"]["optional-dependencies"][extra]:
                yield from needed(more)
    else:
        yield canonicalize_name(wanted.name), wanted


DIRECT = [
    pair
    for text in (*PROJECT["project"]["dependencies"], f"{PROJECT['project']['name']}[dev,audit]")
    for pair in needed(text)
] + [("hatchling", Requirement(text)) for text in PROJECT["build-system"]["requires"]]


@pytest.mark.parametrize(("name", "wanted"), DIRECT, ids=lambda x: str(x))
def test_direct_dependency_is_pinned_within_its_bounds(name, wanted):
    assert name in pins(), "constraints.txt says which version was tested"
    assert wanted.specifier.contains(pins()[name])


def test_what_the_dependencies_bring_is_pinned_within_their_bounds():
    """Of this machine's system and Python; installers and the packages of other systems are not looked at."""
    pinned, todo, seen = pins(), [(name, wanted.extras) for name, wanted in DIRECT], set()
    wrong = []
    while todo:
        name, extras = todo.pop()
        if (name, *sorted(extras)) in seen:
            continue
        seen.add((name, *sorted(extras)))
        try:
            brought = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # an extra that is not installed here
            continue
        for more in brought:
            if more.marker and not any(more.marker.evaluate({"extra": e}) for e in {"", *extras}):
                continue
            other = canonicalize_name(more.name)
            todo.append((other, more.extras))
            if other in ("pip", "setuptools") or re.match(r"nvidia-|cuda-|triton", other):
                continue
            if other not in pinned or not more.specifier.contains(pinned[other], prereleases=True):
                wrong.append(f"{more} ({name}), pinned: {pinned.get(other)}")
    assert not wrong


def test_nothing_names_this_machine_or_where_packages_came_from(tree):
    told = []
    for file in tree.rglob("*"):
        if not file.is_file() or file.suffix in (".html", ".png", ".nc", ".npz", ".pt"):
            continue  # pages carry the drawing library, with the addresses of its authors
        text = file.read_text(encoding="utf-8", errors="replace")
        where = Path(file).relative_to(tree)
        told += [f"{where}: {found[0]}" for found in PRIVATE.finditer(text)]
        hosts = re.findall(r"https?://([\w.-]+)", text)
        told += [f"{where}: {host}" for host in hosts if host not in HOSTS]
    assert not told
