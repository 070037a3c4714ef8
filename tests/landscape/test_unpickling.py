"""Files of strangers: each is one error line, in seconds and in little memory, and runs no code."""

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from hostile_files import OLD, Evil, archive, checkpoint, hostile, legacy, mapping, tensor

from landscape.checkpoint import read_weights
from landscape.unpickling import TrustWarning
from landscape.zip_layout import records

READER = """
import json, resource, sys, time
from landscape.checkpoint import read_weights
from landscape.inspection import inspect_checkpoint
found = {}
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in json.load(sys.stdin):
    began = time.process_time()
    try:
        inspect_checkpoint(path)
        text = "READ"
    except ValueError as error:
        text = str(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found[path] = [text, time.process_time() - began, peak - start]
    start = peak
print(json.dumps([found, peak]))
"""
MIB = 1024  # ru_maxrss counts in KiB on Linux, where these limits are asserted


WORDS = {name: words for name, (_, words) in hostile("mark").items()}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Texts, seconds and growth of the peak memory by name, of one process that reads them all."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in hostile(folder / "executed").items():
        (folder / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([str(folder / name) for name in WORDS]),
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found, peak = json.loads(done.stdout)
    assert done.stderr == ""
    assert not (folder / "executed").exists()
    return {path.rpartition("/")[2]: row for path, row in found.items()}, peak, folder


@pytest.mark.parametrize("name", WORDS)
def test_one_line_in_seconds_and_little_memory(read, name):
    found, _, folder = read
    said, seconds, grown = found[name]
    assert WORDS[name] in said
    assert said.startswith(f"checkpoint {folder / name} ")
    assert said.isprintable()
    assert len(said) < 700
    assert "weights_only" not in said
    assert seconds < 10
    assert grown < 500 * MIB


def test_all_of_them_stay_under_a_gibibyte_and_run_nothing(read):
    _, peak, folder = read
    assert peak < 1024 * MIB
    assert not (folder / "executed").exists()


def test_the_marker_would_be_seen(tmp_path):
    """The malicious file does make its mark where pickle runs it."""
    content = pickle.dumps(Evil(tmp_path / "executed"), protocol=2)
    pickle.loads(content)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", ["zip", "old"])
def test_hand_made_files_are_read_when_they_do_not_lie(tmp_path, kind):
    """Else the refusals above might be of the writer's own mistakes."""
    program = mapping(tensor([2], [1], view=b"" if kind == "zip" else b"N"))
    content = checkpoint(program) if kind == "zip" else legacy(program)
    (tmp_path / "w.pt").write_bytes(content)
    assert torch.equal(read_weights(tmp_path / "w.pt").tensors["w"], torch.zeros(2))


@pytest.mark.parametrize("kind", ["torch", "hand", "wide"])
def test_records_lie_where_python_finds_them(tmp_path, kind):
    if kind == "torch":
        torch.save({"w": torch.ones(3), "v": torch.ones(4)}, tmp_path / "w.pt")
    else:
        parts = [
            ("a/data.pkl", mapping(tensor([2], [1]))),
            ("a/data/0", bytes(8)),
            ("a/version", b"3"),
        ]
        (tmp_path / "w.pt").write_bytes(archive(parts, wide=kind == "wide"))
    assert "w" in read_weights(tmp_path / "w.pt").tensors
    with zipfile.ZipFile(tmp_path / "w.pt") as zipped, (tmp_path / "w.pt").open("rb") as file:
        expected = [(i.filename, i.header_offset, i.file_size) for i in zipped.infolist()]
        assert [(r.name, r.start, r.size) for r in records(file)] == expected


def test_an_old_pickle_of_a_module_is_refused_by_its_class(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.nn.Linear(2, 1), tmp_path / "w.pt", **OLD)
    with pytest.raises(
        ValueError, match=r"holds torch\.nn\.modules\.linear\.Linear, which could run"
    ):
        read_weights(tmp_path / "w.pt")


def test_refused_classes_are_all_named_with_what_to_do(tmp_path):
    torch.save({"w": torch.ones(1), "a": Fraction(1, 2), "b": io.BytesIO(b"")}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="--trust-pickle runs whatever") as caught:
        read_weights(tmp_path / "w.pt")
    for words in ("--allow fractions.Fraction", "--allow _io.BytesIO", "could run code"):
        assert words in str(caught.value)


@pytest.mark.parametrize("options", [{}, OLD])
def test_allowed_classes_are_built_and_only_these(tmp_path, options):
    path, before = tmp_path / "w.pt", set(torch.serialization.get_safe_globals())
    torch.save({"w": torch.ones(1), "a": Fraction(1, 2)}, path, **options)
    assert list(read_weights(path, allow=["fractions.Fraction"]).tensors) == ["w"]
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(ValueError, match=r"holds fractions\.Fraction"):
        read_weights(path, allow=["fractions.Decimal"])
    torch.save(
        {"w": torch.ones(1), "a": Fraction(1, 2), "e": Evil(tmp_path / "x")}, path, **options
    )
    with pytest.raises(ValueError, match=f"holds {os.system.__module__}.system"):
        read_weights(path, allow=["fractions.Fraction"])
    assert not (tmp_path / "x").exists()


def test_numbers_of_numpy_are_allowed_one_class_after_another(tmp_path):
    torch.save({"w": torch.ones(1), "best": np.float64(0.5)}, tmp_path / "w.pt")
    names = []
    for _ in range(3):
        try:
            read_weights(tmp_path / "w.pt", allow=names)
        except ValueError as error:
            names += [word.rstrip(",") for word in str(error).split("--allow ")[1:]]
            names = [name.split()[0] for name in names]
    assert "numpy.dtypes.Float64DType" in names
    assert list(read_weights(tmp_path / "w.pt", allow=names).tensors) == ["w"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("os.system", "nothing of that module"), ("no_such.Class", "cannot be imported")],
)
def test_names_that_cannot_be_allowed(tmp_path, name, words):
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=words):
        read_weights(tmp_path / "w.pt", allow=[name])


@pytest.mark.parametrize("options", [{}, OLD])
def test_trust_runs_what_the_file_says_with_a_warning(tmp_path, options):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.ones(2), "x": Evil(tmp_path / "executed")}, path, **options)
    with pytest.warns(TrustWarning, match="w.pt is unpickled on your word"):
        assert list(read_weights(path, trust_pickle=True).tensors) == ["w"]
    assert (tmp_path / "executed").exists()


def test_a_whole_module_is_read_on_trust(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "w.pt")
    with pytest.warns(TrustWarning):
        weights = read_weights(tmp_path / "w.pt", trust_pickle=True)
    assert list(weights.tensors) == ["weight", "bias"]


def test_what_training_scripts_save_beside_weights_is_read(tmp_path):
    beside = {
        "milestones": collections.Counter({30: 1}), "set": {1, 2}, "bytes": b"\xff", "array": bytearray(b"a"),
        "shape": torch.ones(2, 3).shape, "dtype": torch.float16, "device": torch.device("cpu"), "z": 1j,
        "big": 2**100, "none": None, "flags": (True, False, 1.5), "text": "é", "rng": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.ones(2)), "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(50), "view": torch.arange(9.0)[2:8:3], "history": [0.5] * 5000,
    }  # fmt: skip
    state = {"model": {"w": torch.ones(2)}, "beside": beside}
    new = {
        "float8": torch.ones(2).to(torch.float8_e4m3fn),
        "odd": torch.ones(2, dtype=torch.uint16),
    }
    for options in (OLD, {}):
        beside |= {} if options else new  # the old format knows no such types
        torch.save(state, tmp_path / "w.pt", **options)
        weights = read_weights(tmp_path / "w.pt")
        assert weights.key == "model"
        inside = read_weights(tmp_path / "w.pt", key="beside")
        assert torch.equal(inside.tensors["view"], torch.tensor([2.0, 5.0]))
        assert inside.tensors["expanded"].shape == (50,)
        assert len(inside.ignored) == 13
