"""Damaged and hostile files: a few hundred for every reader, and those that once came through.

``benchmarks/faults_fuzz.py`` runs the same with many more.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzzing import ours, packed, running, seeds, theirs
from fuzzing.engine import run
from fuzzing.target import Target, changed
from hostile_files import legacy, mapping, tensor
from PIL import Image

from landscape import hdf5_apart, json_text, netcdf, npz, pictures, store
from landscape.array_pickle import read_array_pickle
from landscape.checkpoint import read_weights
from landscape.sharpness import SharpnessReport
from sharpmaml import checkpoint
from sharpmaml.config import TrainConfig
from sharpmaml.data import archives, miniimagenet
from sharpmaml.data.episodes import DataError
from sharpmaml.trainer import log

COUNT = 100
HEAVY = 30  # of readers that start another process, or read many files
SLOW = ("HDF5", ".nc", "folder", "pictures")
ROOT = Path(__file__).resolve().parents[1]

SERVER = """
import json, sys
import torch
torch.set_num_threads(1)
from fuzzing import engine, running
known = {target.name: target for target in running.targets()}
for line in sys.stdin:
    name, count = json.loads(line)
    print(json.dumps(engine.run(known[name], range(count)).as_dict()), flush=True)
"""


@pytest.fixture(scope="module")
def tried():
    """Reader and number of inputs -> counts; in a process of its own, for the hook that watches it stays for good."""
    places = os.pathsep.join((str(ROOT / "tests"), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:

        def ask(name, count):
            server.stdin.write(json.dumps([name, count]) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


@pytest.mark.parametrize("target", running.targets(), ids=lambda target: target.name)
def test_damaged_files_are_read_or_refused(tried, target):
    count = HEAVY if any(word in target.name for word in SLOW) else COUNT
    counts = tried(target.name, count)
    assert counts["failures"] == {}
    whole = len(target.seeds())
    assert counts["accepted"] + counts["refused"] == counts["inputs"] == count + whole
    assert counts["accepted"] >= whole


def test_an_input_is_what_its_number_says():
    for target in running.targets()[3::6]:
        whole = target.seeds()
        again = [changed(target, whole, index) for index in range(10)]
        assert again == [changed(target, whole, index) for index in range(10)]
        assert len({str(files) for _, files in again}) > 5


def _twice(folder):
    raise DataError(f"{folder.name}\nand more")


def _memory(folder):
    return np.ones(1 << 28)


BAD = {
    "raises KeyError": lambda folder: {}["x"],
    "message of several lines": _twice,
    "message names no file": lambda folder: ours.parse("x(", "it") and TrainConfig(method="y"),
    "memory": _memory,
    "crash SIGSEGV": lambda folder: os.kill(os.getpid(), 11),
    "exec": lambda folder: exec("1"),
    "os.system": lambda folder: os.system("true"),
    "writes": lambda folder: (folder.parents[2] / "escaped").write_text("x"),
    "reads": lambda folder: Path("/etc/hostname").read_text(),
    "socket": lambda folder: __import__("socket").socket(),
    "warning UserWarning": lambda folder: __import__("warnings").warn("x", UserWarning),
    "pickle.find_class": lambda folder: pickle.loads(pickle.dumps(Path)),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_a_reader_must_not_do_is_seen(kind):
    """Each is a failure of its kind: the watch is not blind."""
    counts = run(Target("x", lambda: [{"a.txt": b"x"}], BAD[kind]), [0])
    assert counts.failed == 2 and counts.accepted == counts.refused == 0
    assert all(kind in told for told in counts.failures)


def refused(read, *words):
    with pytest.raises(ValueError) as caught:
        read()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 2000
    assert all(word in text for word in words), text
    return text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "too deep"), ("[" * 101 + "]" * 101, "too deep"), (b"\xff", "not JSON"), ("", "not JSON"),
        ("9" * 5000, "not JSON"), (b" " * (json_text.MAX_BYTES + 1), "bytes, over"),
    ],
)  # fmt: skip
def test_json_is_a_document_or_one_line(text, told, tmp_path):
    refused(lambda: json_text.parsed(text), told)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: json_text.read(tmp_path / "a.json"), "a.json cannot be read")
    assert json_text.parsed("[" * 100 + "]" * 100) and json_text.parsed("[]" + " " * 9) == []


def npy(descr="'<f8'", shape="(2,)", data=bytes(16), order="False", more=""):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "member",
    [
        npy(shape="(1000000000000,)"), npy(shape="(-2,)"), npy(shape="(True, 2)"), npy(shape="2"), npy(descr="'|O'"),
        npy(descr="[('a', '<f8')]"), npy(descr="'<M8[s]'"), npy(shape="(" * 500 + ")" * 500), npy(data=bytes(17)),
        npy(data=bytes(15)), b"\x93NUMPY\x09\x00", b"words", npy(descr="'<U4'"), npy(order="1"),
    ],
)  # fmt: skip
def test_arrays_fill_their_place_in_an_npz(member, tmp_path):
    (tmp_path / "a.npz").write_bytes(packed.written([["x.npy", member, True]]))
    with npz.Npz(tmp_path / "a.npz") as stored:
        refused(lambda: stored.array("x"), "array x")


@pytest.mark.parametrize(
    "lie", [{"full": 1 << 40}, {"method": 14}, {"method": 12}, {"flags": 1}, {"crc": 1}]
)
def test_the_directory_of_an_npz_may_lie(lie, tmp_path):
    (tmp_path / "a.npz").write_bytes(packed.written([["x.npy", npy(), True]], {0: lie}))
    with npz.Npz(tmp_path / "a.npz") as stored:
        refused(lambda: stored.array("x"), "array x")


def test_arrays_of_an_npz_come_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "big": rng.normal(size=(2, 3)).astype(">f4"), "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "empty": np.zeros((0, 3)), "scalar": np.array(3), "flags": np.array([True, False]),
        "complex": np.array([1j]), "half": np.ones(3, np.float16),
    }  # fmt: skip
    np.savez_compressed(tmp_path / "a.npz", words=np.array(["a", "ä", ""]), **arrays)
    with npz.Npz(tmp_path / "a.npz") as stored, np.load(tmp_path / "a.npz") as expected:
        for name in arrays:
            found = stored.array(name)
            assert np.array_equal(found, expected[name]) and found.shape == expected[name].shape
            assert found.flags.writeable and found.dtype.isnative
        assert stored.texts("words") == ["a", "ä", ""]
    (tmp_path / "b.npz").write_bytes(
        packed.written(
            [
                ["x.npy", npy("'<U1'", "(1,)", b"\xff" * 4), True],
                ["y.npy", npy("'|b1'", "(2,)", b"\7\0"), True],
            ]
        )
    )
    with npz.Npz(tmp_path / "b.npz") as stored:
        refused(lambda: stored.texts("x"), "no text")
        assert stored.array("y").view(np.uint8).tolist() == [1, 0]


def test_pictures_are_decoded_within_bounds():
    """EPS would start Ghostscript; 400 megapixels pack into a few kilobytes."""
    refused(
        lambda: pictures.opened(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no picture"
    )
    stream = io.BytesIO()
    Image.new("1", (10_000, 5_001)).save(stream, "PNG")
    refused(lambda: pictures.opened(stream.getvalue()), "over 50000000 pixels")
    assert pictures.opened(seeds.picture(size=3)).size == (3, 3)


def test_a_pickle_cannot_ask_for_a_large_memo(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_array_pickle(tmp_path / "a.pkl") == {}


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "..", "a\\b", "x" * 300, "\x1b[31m"])
def test_lists_of_pictures_stay_in_their_folder(name, tmp_path):
    with pytest.raises(DataError, match="names a file elsewhere"):
        miniimagenet._read_list(tmp_path, f'filename,label\n"{name}",a\n')


@pytest.mark.parametrize("lie", [{"full": 1 << 30}, {"method": 14}])
def test_members_of_archives_are_of_a_checked_size_and_method(lie):
    with zipfile.ZipFile(io.BytesIO(packed.written([["a", b"x", True]], {0: lie}))) as archive:
        refused(lambda: archives.content(archive, "a"))


@pytest.mark.parametrize(
    "change",
    [{"measures": [1]}, {"measures": None}, {"schema": "x" * 9000}, {"about": {"trace": 3}},
     {"asked": {"trace": 1}}, {"context": {"loss": 10**400}}, {"skipped": [1]}, {"invariance": {"trace": [1]}}],
)  # fmt: skip
def test_reports_are_whole_or_refused(change):
    document = json.loads(ours._report()) | change
    refused(lambda: SharpnessReport.from_json(json.dumps(document)), "sharpness report")


def test_a_network_larger_than_its_weights_is_not_built(tmp_path):
    files = theirs._checkpoints()[0]
    meta = json.loads(files["meta.json"])
    for arguments in (
        {"hidden": 1 << 30, "layers": 2},
        {"layers": 1 << 30},
        {"hidden": 0},
        {"hidden": "x"},
    ):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "meta.json").write_text(
            json.dumps(meta | {"model": {"factory": "mlp", "arguments": arguments}})
        )
        refused(lambda: checkpoint.read(tmp_path), "meta.json is not usable")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 99_999,
        "seed = " + "9" * 5000,
        "seed = '\\n'",
        "channels = 'x'",
        "\x00",
        "data_options = 1",
    ],
)
def test_settings_name_their_file(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    refused(lambda: TrainConfig.from_toml(tmp_path / "a.toml"), "a.toml")


def test_a_log_ends_at_what_is_no_record(tmp_path):
    good = b'{"iteration": 1, "loss": 0.5}\n'
    for bad in (
        b"\xff\n",
        b"[" * 99_999,
        b"[1]\n",
        b'{"iteration": "1"}\n',
        b'{"iteration": 1e400}\n',
        b"{}\n",
    ):
        (tmp_path / "m.jsonl").write_bytes(good + bad + good)
        assert log.read(tmp_path / "m.jsonl") == [{"iteration": 1, "loss": 0.5}]


def test_netcdf_read_apart_is_what_xarray_reads(tmp_path):
    import xarray as xr

    for number, files in enumerate(ours._datasets()):
        path = tmp_path / f"{number}.nc"
        path.write_bytes(files["x.nc"])
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            expected = opened.load().drop_encoding()
        found = netcdf.read(path)
        xr.testing.assert_identical(found, expected)
        assert list(found.variables) == list(expected.variables)
        assert {n: v.dtype for n, v in found.variables.items()} == {
            n: v.dtype for n, v in expected.variables.items()
        }
        assert {n: type(v) for n, v in found.attrs.items()} == {
            n: type(v) for n, v in expected.attrs.items()
        }


WORKERS = {
    "dies": "import os; os.abort()",
    "hangs": "import time; time.sleep(99)",
    "cut short": "import sys; sys.stdin.readline(); sys.stdout.buffer.write(b'abc')",
    "lies": "import sys; sys.stdin.readline(); sys.stdout.buffer.write((1 << 20).to_bytes(8, 'little') + b'{}')",
}  # fmt: skip


@pytest.mark.parametrize("kind", WORKERS)
def test_a_file_on_which_the_other_process_dies_is_refused(kind, tmp_path, monkeypatch):
    """And the next file is read by another one."""
    path = tmp_path / "x.nc"
    path.write_bytes(ours._datasets()[0]["x.nc"])
    whole = store.load(path)
    with monkeypatch.context() as patched:
        (tmp_path / "worker.py").write_text(WORKERS[kind])
        patched.setattr(hdf5_apart, "_WORKER", tmp_path / "worker.py")
        patched.setattr(hdf5_apart, "_WAIT", 0.5)
        patched.setattr(hdf5_apart, "_workers", {})
        refused(lambda: store.load(path), "x.nc: not a NetCDF file", "ended the process that tried")
    assert store.load(path).identical(whole)


def test_a_byte_that_makes_libhdf5_loop_for_ever_costs_two_seconds(tmp_path):
    """HDF5 2.0.0 does not come back from this file."""
    content = bytearray(ours._datasets()[6]["x.nc"])
    content[2736] = 10
    (tmp_path / "x.nc").write_bytes(content)
    try:
        assert (
            store.load(tmp_path / "x.nc").attrs["schema"] == store.SCHEMA
        )  # where that was mended
    except ValueError as error:
        assert "x.nc: not a NetCDF file" in str(error)


def test_an_old_checkpoint_that_lists_no_storages_is_refused(tmp_path):
    content = legacy(mapping(tensor([2], [1], view=b"N")))
    keys = pickle.dumps(["0"], protocol=2)
    assert keys in content
    (tmp_path / "x.th").write_bytes(content.replace(keys, b"\x80\x02K\x01."))
    refused(lambda: read_weights(tmp_path / "x.th"), "does not list its storages")


def test_links_and_claims_of_hdf5_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["soft"], file["far"] = h5py.SoftLink("/x"), h5py.ExternalLink("b.h5", "/x")
        file["loop"] = file["/"]
    kinds = {name: node["kind"] for name, node in hdf5_apart.tree(tmp_path / "a.h5")["entries"]}
    assert kinds == {"soft": "link", "far": "link", "loop": "other"}
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (10**12,), "f4", chunks=(10**6,))
    refused(lambda: hdf5_apart.tree(tmp_path / "b.h5"), "claims arrays of 4000000000000 bytes")
    hdf5_apart.vet(tmp_path / "b.h5")
