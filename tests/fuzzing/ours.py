"""Readers of ``landscape``: results, checkpoints of strangers, evaluation data, words of the command line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from problems import conv_objective

from fuzzing import seeds
from fuzzing.target import Files, Target
from landscape import cifar10, datasets, kept, source, store
from landscape.calls import parse
from landscape.checkpoint import read_weights
from landscape.compared_spectra import Asked, Spectrum
from landscape.exchange import li2018
from landscape.inspection import inspect_checkpoint
from landscape.objective import FunctionObjective
from landscape.pixels import standardized
from landscape.sharpness import SharpnessReport, resume
from landscape.sharpness.measurement import Influence, Measurement
from landscape.spectra.stability import read_optimizer

_SCHEMAS = (
    store.SCHEMA,
    store.CURVATURE_MAP,
    store.ALONG_TRAINING,
    store.TRAJECTORY,
    store.DIFFERENCE,
    store.CURVE,
)


def _dataset(schema: str) -> xr.Dataset:
    """A small file of the schema, with every kind of variable and attribute that such files hold."""
    grid = np.linspace(0, 1, 6).reshape(2, 3)
    found = xr.Dataset(
        {
            "loss": (("beta", "alpha"), grid, {"long_name": "loss", "units": "nats"}),
            "loss_stderr": (("beta", "alpha"), np.full((2, 3), np.nan)),
            "evaluated": (("beta", "alpha"), np.ones((2, 3), np.int8)),
            "terms": (("beta", "alpha", "example"), np.zeros((2, 3, 2), np.float32)),
            "path": ("step", np.arange(4)),
            "name": ("step", np.array(["a", "b", "ä", ""], dtype=object)),
            "total": ((), 1.5),
        },
        {"alpha": [-1.0, 0.0, 1.0], "beta": [0.0, 1.0]},
        {
            "schema": schema, "label": "net", "objective": '{"data": "x"}', "axes": 2, "span": [-1.0, 1.0],
            "ignore": ["bias", "norm"], "direction_norms": [0.5], "axis_titles": ["a", "b"], "settings": "{}",
            "centre_loss": 0.5, "points": 3, "cautions": "[]", "created_at": "2026-01-01T00:00:00+00:00",
        },
    )  # fmt: skip
    return found


def _nc(schema: str, **encoding: Any) -> bytes:
    def write(path: Path) -> None:
        if encoding:
            _dataset(schema).to_netcdf(path, engine="h5netcdf", encoding={"loss": encoding})
        else:
            store.save(_dataset(schema), path)

    return seeds.through_file(write, "x.nc")


def _datasets() -> list[Files]:
    whole = [{"x.nc": _nc(schema), "schema": schema.encode()} for schema in _SCHEMAS]
    packed = _nc(
        store.SCHEMA, zlib=True, complevel=4, shuffle=True, fletcher32=True, chunksizes=(1, 2)
    )
    return [*whole, {"x.nc": packed, "schema": store.SCHEMA.encode()}]


def _load(folder: Path) -> Any:
    return store.load(folder / "x.nc", (folder / "schema").read_text())


def _surfaces() -> list[Files]:
    def plane(file: Any) -> None:
        file["xcoordinates"], file["ycoordinates"] = np.linspace(-1, 1, 3), np.linspace(0, 1, 2)
        file["train_loss"], file["train_acc"] = np.ones((3, 2)), np.full((3, 2), 50.0)
        file["dir_file"] = "net_weights_xignore=biasbn_xnorm=filter.h5"

    def line(file: Any) -> None:
        file["xcoordinates"] = np.linspace(-1, 1, 5).astype(np.float32)
        file.create_dataset(
            "test_loss", data=np.ones(5), chunks=(2,), compression="gzip", shuffle=True
        )
        file["dir_file"] = np.bytes_(b"x.h5")

    return [{"s.h5": seeds.hdf5(plane)}, {"s.h5": seeds.hdf5(line, libver="latest")}]


@cache
def _network() -> Any:
    return conv_objective()


def _directions() -> list[Files]:
    shapes = [tuple(p.shape) for p in _network().module.parameters()]

    def fill(file: Any) -> None:
        for name in ("xdirection", "ydirection"):
            for i, shape in enumerate(shapes):
                file[f"{name}/{i}"] = np.ones(shape, np.float32)

    return [{"d.h5": seeds.hdf5(fill)}, {"d.h5": seeds.hdf5(fill, libver="latest")}]


def _report(text: bool = True) -> Any:
    rows = (
        Measurement("trace", 1.5, 0.1, (1.3, 1.7), {"probes": 8, "ladder": (0.1, float("inf"))}, 8.0, "note",
                    influence=Influence((1.0, 2.0), (0.5, 0.5), "data", (0.1,)), bound=0.1, paid=2.0,
                    variants=(Measurement("trace", float("nan"), settings={"rho": 0.1}),)),
        Measurement("gradient", 0.5, None, None, {}, 1.0, "", converged=False),
    )  # fmt: skip
    bowl = _bowl()
    report = SharpnessReport(
        rows, resume.plain_settings(bowl), 3, {"keskar": "why"}, {"trace": {"change": 0.5}},
        {"trace": {"probes": 8}, "gradient": {}}, {"trace": {"title": "t", "orientation": 1}},
        {"loss": 1.0, "chance": 2.3}, "ab" * 8, {"loss": 1.0},
    )  # fmt: skip
    return report.to_json().encode() if text else report


@cache
def _bowl() -> FunctionObjective:
    return FunctionObjective(lambda t: (t * t).sum(), torch.ones(2))


def _kept_report() -> list[Files]:
    def write(path: Path) -> None:
        kept.keep(path, _report(False).document(), _bowl(), 1.0)

    return [{"r.json": seeds.through_file(write, "r.json")}]


def _read_kept_report(folder: Path) -> Any:
    wanted = {"trace": {"probes": 8}, "gradient": {}}
    found = kept.kept_report(folder / "r.json", _bowl(), 1.0, 3, wanted)
    return found and found.to_json()


def _kept_spectrum() -> list[Files]:
    density = xr.Dataset({"density": ("x", [0.5, 1.0])}, {"x": [0.0, 1.0]}, {"probes": 2})
    found = Spectrum((3.0, 1.0), (0.1, 0.1), (0.2, 0.3), "converged", True, 12, density, {"k": 2})

    def write(path: Path) -> None:
        kept.keep(path, kept.spectrum_document(found, _bowl(), 0, Asked(k=2)), _bowl(), 1.0)

    return [{"s.json": seeds.through_file(write, "s.json")}]


def _read_kept_spectrum(folder: Path) -> Any:
    found = kept.kept_spectrum(folder / "s.json", _bowl(), 1.0, 0, Asked(k=2))
    return found and (found.columns, found.document())


def _read_report(folder: Path) -> Any:
    report = SharpnessReport.from_json(
        (folder / "r.json").read_text(encoding="utf-8", errors="replace")
    )
    return report.table(), report.to_json(), report.spent


def _continued(folder: Path) -> Any:
    objective = _bowl()
    return resume.continued(folder / "r.json", resume.plain_settings(objective), "ab" * 8, 3, 1.0)


def _zips() -> list[Files]:
    return [
        {"x.pt": seeds.saved(state)}
        for name, state in seeds.states().items()
        if name != "optimizer"
    ]


def _legacy() -> list[Files]:
    return [
        {"x.th": seeds.saved(s, **seeds.OLD)}
        for name, s in seeds.states().items()
        if name != "optimizer"
    ]


def _safetensors() -> list[Files]:
    ones = np.ones(4, np.float32).tobytes()
    whole = {
        "model.w": ("F32", [2, 2], ones),
        "model.b": ("BF16", [2], ones[:4]),
        "model.n": ("I64", [], bytes(8)),
    }
    return [
        {"x.safetensors": seeds.safetensors(whole, {"format": "pt"})},
        {"x.safetensors": seeds.safetensors({"w": ("F64", [2], ones), "e": ("U8", [0], b"")})},
    ]


def _shards() -> list[Files]:
    ones = np.ones(4, np.float32).tobytes()
    parts = {f"m-{i}.safetensors": seeds.safetensors({f"w{i}": ("F32", [4], ones)}) for i in (1, 2)}
    index = {
        "metadata": {"total_size": 32},
        "weight_map": {f"w{i}": f"m-{i}.safetensors" for i in (1, 2)},
    }
    pickled = {f"p-{i}.bin": seeds.saved({f"w{i}": torch.ones(2)}) for i in (1, 2)}
    other = {"weight_map": {f"w{i}": f"p-{i}.bin" for i in (1, 2)}}
    return [
        {**parts, "x.index.json": json.dumps(index).encode()}, {**pickled, "x.index.json": json.dumps(other).encode()},
    ]  # fmt: skip


def _inspected(name: str) -> Any:
    def read(folder: Path) -> Any:
        found = inspect_checkpoint(folder / name)
        return found.weights.fingerprint, found.tied, found.dtypes, found.unsound

    return read


def _optimizers() -> list[Files]:
    state = seeds.states()
    return [
        {"trainer.pt": seeds.saved({"optimizer": state["optimizer"]})}, {"trainer.pt": seeds.saved(state["optimizer"])},
    ]  # fmt: skip


def _arrays() -> list[Files]:
    x, y = np.arange(32, dtype=np.uint8).reshape(2, 4, 4), np.array([0, 1])
    split = {"train_x": np.ones((2, 3)), "train_y": y, "test_x": np.ones((2, 3)), "test_y": y}
    return [
        {"x.npz": seeds.npz(x=x, y=y)}, {"x.npz": seeds.npz(True, images=x[..., None], labels=y)},
        {"x.npz": seeds.npz(**split)}, {"x.npz": seeds.npz(input_ids=np.ones((2, 5), np.int32))},
    ]  # fmt: skip


def _tensors() -> list[Files]:
    return [{"x.pt": seeds.saved({"x": torch.ones(4, 3), "y": torch.arange(4)})}]


def _examples(name: str, **options: Any) -> Any:
    reading = datasets.Reading(**{"examples": 3, **options})

    def read(folder: Path) -> Any:
        return datasets.read(str(folder / name) if name else str(folder), reading)

    return read


def _folders() -> list[Files]:
    grey = {f"{c}/{i}.png": seeds.picture(i, mode="L") for i, c in enumerate("ab")}
    mixed = {
        "train/a/1.png": seeds.picture(1), "train/b/1.jpg": seeds.picture(2, kind="JPEG"),
        "test/a/1.png": seeds.picture(3),
        "train/a/deeper/2.png": seeds.picture(4, mode="P"),
    }  # fmt: skip
    return [grey, mixed]


def _cifar_packed() -> list[Files]:
    pixels, labels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3, 32, 32), np.array([3, 9])
    arrays = {
        "train_images": pixels,
        "train_labels": labels,
        "test_images": pixels,
        "test_labels": labels,
    }
    return [{"cifar10.npz": seeds.npz(True, **arrays)}, {"cifar10.npz": seeds.npz(**arrays)}]


def _cifar_binary() -> list[Files]:
    record = bytes([3]) + bytes(3072)
    return [{f"cifar-10-batches-bin/{name}.bin": record for name in cifar10.TRAIN}]


def _cifar_pickled() -> list[Files]:
    made = []
    for protocol in (2, 4):
        stored = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [7], b"filenames": [b"a.png"]}
        batch = seeds.arrays_pickle(stored, protocol)
        made.append({f"cifar-10-batches-py/{name}": batch for name in cifar10.TRAIN})
    return made


def _called(folder: Path) -> Any:
    return parse(
        (folder / "call.txt").read_text(encoding="utf-8", errors="replace"),
        f"--model of {folder.name}",
    )


def _standardized(folder: Path) -> Any:
    return standardized(
        torch.ones(1, 3, 2, 2), (folder / "s.txt").read_text(encoding="utf-8", errors="replace")
    )


def _described(folder: Path) -> Any:
    schema = source.describes_itself(folder)
    return schema, source.description(folder)


_CALLS = (
    "net.py:make(3, width=16)", "pkg.mod:factory(a=[1, 2.5, 'x'], b={'k': (True, None)}, c=-1e3)", "cifar:resnet20",
    "x(b'a', {1, 2}, ...)", "x('''a''')",
)  # fmt: skip

TARGETS = (
    Target("dataset files (.nc, six schemas)", _datasets, _load, ("schema",)),
    Target("li2018 surface (HDF5)", _surfaces, lambda folder: li2018.read_surface(folder / "s.h5")),
    Target("li2018 directions (HDF5)", _directions, lambda folder: li2018.read_directions(folder / "d.h5", _network())),
    Target("sharpness report (JSON)", lambda: [{"r.json": _report()}], _read_report, names_file=False),
    Target("sharpness report, continued", lambda: [{"r.json": _report()}], _continued),
    Target("kept report of a comparison", _kept_report, _read_kept_report),
    Target("kept spectrum of a comparison", _kept_spectrum, _read_kept_spectrum),
    Target("torch.save, zip (.pt)", _zips, _inspected("x.pt")),
    Target("torch.save, before 1.6 (.th)", _legacy, _inspected("x.th")),
    Target("safetensors", _safetensors, _inspected("x.safetensors")),
    Target("shards and index.json", _shards, lambda folder: read_weights(folder / "x.index.json").fingerprint),
    Target("optimizer state", _optimizers, lambda folder: read_optimizer(folder / "trainer.pt")),
    Target("arrays (.npz)", _arrays, _examples("x.npz")),
    Target("tensors (.pt) as data", _tensors, _examples("x.pt")),
    Target("folder of pictures", _folders, _examples("", image_size=8)),
    Target("CIFAR-10, .npz", _cifar_packed, lambda folder: cifar10.read(folder, "train")),
    Target("CIFAR-10, binary", _cifar_binary, lambda folder: cifar10.read(folder, "train")),
    Target("CIFAR-10, pickles", _cifar_pickled, lambda folder: cifar10.read(folder, "train")),
    Target("calls on the command line", lambda: [{"call.txt": call.encode()} for call in _CALLS], _called),
    Target("--standardize", lambda: [{"s.txt": b"0.5 0.5 0.5 / 0.25 0.25 0.25"}, {"s.txt": b"cifar10"}], _standardized,
           names_file=False),
    Target("folder that describes itself", lambda: [{"meta.json": b'{"schema": "sharpmaml.checkpoint/1", "step": 3}'}],
           _described),
)  # fmt: skip
