"""Readers of ``sharpmaml``: settings, runs, data sets, pieces of a reproduction."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from fuzzing import seeds
from fuzzing.ours import _report
from fuzzing.packed import written
from fuzzing.target import Files, Target
from landscape.sharpness import SharpnessReport
from landscape.space import ParameterSpace
from sharpmaml import checkpoint, models, runs, study
from sharpmaml.config import TrainConfig
from sharpmaml.data import cache, cifarfs, folder, miniimagenet, omniglot
from sharpmaml.data.images import ImageSet, image_set
from sharpmaml.reproduction import keeping, measuring
from sharpmaml.reproduction.depth import DEPTHS
from sharpmaml.reproduction.ledger import read_report
from sharpmaml.reproduction.planning import Plan, Stage
from sharpmaml.trainer import log

Image.init()  # all formats now, not in the middle of a file
_SPLITS = ("train", "val", "test")


def _settings() -> list[Files]:
    one = TrainConfig(
        method="sharp-both",
        data="omniglot",
        data_options={"split": "vinyals", "small": True},
        seed=3,
    )
    return [
        {"config.toml": one.to_toml().encode()},
        {"config.toml": TrainConfig().to_toml().encode()},
    ]


def _checkpoint(config: TrainConfig, factory: str, **arguments: Any) -> dict[str, bytes]:
    model = models.build(factory, arguments)
    space = ParameterSpace.from_module(model)
    theta = space.flatten(dict(model.named_parameters())).detach()
    rates = torch.full_like(theta, 0.1) if config.chosen("rates") == "parameter" else None
    meta = {
        "config": config.to_dict(),
        "model": {"factory": factory, "arguments": arguments},
        "executor": "vmap",
    }
    trainer = {"optimizer": seeds.states()["optimizer"], "best": {"step": 1, "mean": 0.5}}
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint.write(Path(place), 3, space, theta, trainer, meta, rates)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def _checkpoints() -> list[Files]:
    return [
        _checkpoint(TrainConfig(data="sinusoid", model="mlp"), "mlp", hidden=3, layers=1),
        _checkpoint(
            TrainConfig(method="meta-sgd", channels=2), "conv4", ways=5, channels=2, image_size=16
        ),
    ]


def _run_folders() -> list[Files]:
    one = _checkpoints()[0]
    lines = [
        {
            "iteration": i,
            "loss": 1.0 / i,
            "seconds": 0.1,
            "validation": {"metric": "mse", "mean": 0.5},
        }
        for i in (1, 2, 3)
    ]
    best = {"checkpoint": "step_000001", "step": 1, "mean": 0.5}
    return [
        {
            **{f"checkpoints/step_00000{i}/{name}": content for i in (1, 3) for name, content in one.items()},
            "best.json": json.dumps(best, indent=1).encode(),
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "config.toml": TrainConfig(data="sinusoid", model="mlp").to_toml().encode(),
        }
    ]  # fmt: skip


def _read_checkpoint(place: Path) -> Any:
    given = checkpoint.read(place)
    return given.inner(), given.label, given.fingerprint


def _read_run(place: Path) -> Any:
    run = runs.load_run(place)
    return run.config, run.checkpoints, run.metrics, run.locate("last")


def _read_log(place: Path) -> Any:
    file = place / "metrics.jsonl"
    rows = [log.flat(record) for record in log.read(file, 2)]
    log.Log(file, 2).close()
    return rows, measuring.timings(file)


def _png(number: int, size: int = 8, mode: str = "1") -> bytes:
    return seeds.picture(number, size, mode)


def _omniglot(packed: bool) -> list[Files]:
    """Two parts of two alphabets each, two drawings a character."""
    parts: dict[str, list[list[object]]] = {}
    for part, numbers in (("images_background", (1, 2, 3)), ("images_evaluation", (4, 5))):
        for number in numbers:
            for drawer in (1, 2):
                name = f"{part}/A{number}/character01/{number:04d}_{drawer:02d}.png"
                parts.setdefault(part, []).append([name, _png(number), True])
    if packed:
        return [{f"{part}.zip": written(records) for part, records in parts.items()}]
    files = {str(name): content for records in parts.values() for name, content, _ in records}
    return [{name: content for name, content in files.items() if isinstance(content, bytes)}]


def _omniglot_arrays() -> list[Files]:
    arrays = {
        "images": np.zeros((5, 2, 8), np.uint8), "alphabet_names": np.array(["A", "B", "C", "D"]),
        "alphabet": np.array([0, 1, 2, 3, 3]), "character": np.array([1, 1, 1, 1, 2]),
    }  # fmt: skip
    return [{"omniglot.npz": seeds.npz(True, **arrays)}]


def _read_omniglot(place: Path) -> Any:
    small = {"CLASSES": 5, "BACKGROUND": 3, "DRAWERS": 2, "SIDE": 8, "SIZE": 4}
    with mock.patch.multiple(omniglot, **small):
        return omniglot.load_omniglot(place)


_CLASSES = {"train": ("a", "b"), "val": ("c",), "test": ("d",)}


def _names(split: str) -> list[tuple[str, str]]:
    return [(f"{name}{i}.jpg", name) for name in _CLASSES[split] for i in (1, 2)]


def _listing(split: str) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([("filename", "label"), *_names(split)])
    return text.getvalue().encode()


def _mini_lists() -> list[Files]:
    lists = {f"{split}.csv": _listing(split) for split in _SPLITS}
    pictures = {
        f"images/{file}": seeds.picture(i)
        for i, (file, _) in enumerate(n for s in _SPLITS for n in _names(s))
    }
    return [{**lists, **pictures}]


def _mini_zips() -> list[Files]:
    files: Files = {
        f"{split}.zip": written([
            [f"{split}.csv", _listing(split), True], *([f"images/{file}", seeds.picture(1), True] for file,
            _ in _names(split)),
        ])
        for split in _SPLITS
    }  # fmt: skip
    return [files]


def _mini_pickles() -> list[Files]:
    made = []
    for protocol in (2, 4):
        files = {}
        for split in _SPLITS:
            index = {name: [2 * i, 2 * i + 1] for i, name in enumerate(_CLASSES[split])}
            images = np.full((2 * len(index), 8, 8, 3), 7, np.uint8)
            stored = {"image_data": images, "class_dict": index}
            files[f"mini-imagenet-cache-{split}.pkl"] = seeds.arrays_pickle(stored, protocol)
        made.append(files)
    return made


def _mini_hdf5() -> list[Files]:
    files: dict[str, bytes] = {}
    for split in _SPLITS:

        def fill(file: Any, split: str = split) -> None:
            for name in _CLASSES[split]:
                file[f"datasets/{name}"] = np.full((2, 8, 8, 3), 7, np.uint8)

        files[f"{split}_data.hdf5"] = seeds.hdf5(fill)
        files[f"{split}_labels.json"] = json.dumps(_CLASSES[split]).encode()
    return [files]


def _cifarfs_lists() -> list[Files]:
    lists = {
        f"splits/bertinetto/{split}.txt": "\n".join(_CLASSES[split]).encode() for split in _SPLITS
    }
    pictures = {
        f"data/{name}/{i}.png": seeds.picture(i)
        for s in _SPLITS
        for name in _CLASSES[s]
        for i in (1, 2)
    }
    return [{**lists, **pictures}]


def _cifarfs_official() -> list[Files]:
    lists = {
        f"splits/bertinetto/{split}.txt": "\n".join(_CLASSES[split]).encode() for split in _SPLITS
    }
    part = {
        b"data": np.zeros((4, 3072), np.uint8),
        b"fine_labels": [0, 1, 2, 3],
        b"batch_label": b"x",
    }
    meta = {b"fine_label_names": [b"a", b"b", b"c", b"d"]}
    official = {"meta": meta, "train": part, "test": part}
    return [
        {
            **lists,
            **{
                f"cifar-100-python/{name}": seeds.arrays_pickle(one)
                for name, one in official.items()
            },
        }
    ]


def _cifarfs_pickles() -> list[Files]:
    part = {"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0, 1]}
    return [
        {f"CIFAR_FS_{split}.pickle": seeds.arrays_pickle(part, p) for split in _SPLITS}
        for p in (2, 4)
    ]


def _tree(prefix: str = "") -> Files:
    return {
        f"{prefix}{s}/{name}/{i}.png": seeds.picture(i)
        for s in _SPLITS
        for name in _CLASSES[s]
        for i in (1, 2)
    }


def _trees() -> list[Files]:
    kinds = {"bmp": "BMP", "gif": "GIF", "webp": "WEBP", "tif": "TIFF", "ppm": "PPM", "jpg": "JPEG"}
    flat = {
        f"{c}/{i}.{suffix}": seeds.picture(i, kind=kind)
        for c in "abcd"
        for i, (suffix, kind) in enumerate(kinds.items())
    }
    return [_tree(), flat]


_KEY = {"version": 1}


def _image_set() -> ImageSet:
    splits = {split: np.array([i]) for i, split in enumerate(_SPLITS)}
    images = np.zeros((3, 2, 4, 4), np.uint8)
    return image_set(
        "x", images, np.zeros(3, np.int64), ("A",), ("a", "b", "c"), splits, {"source": "test"}
    )


def _cached() -> list[Files]:
    name = cache.cache_path("x", _KEY).name

    def write(path: Path) -> None:
        cache._write(path, _image_set(), True)

    return [{name: seeds.through_file(write, name)}]


def _read_cached(place: Path) -> Any:
    """The set in the cache or, where the file is damaged, a new one; it may put that in the file's place."""
    with mock.patch.object(cache, "cache_dir", lambda: place):
        found = cache.cached("x", _KEY, _image_set)
    if found.fingerprint != _image_set().fingerprint:
        raise AssertionError("the cache gave other images")
    return found.image_shape


def _plans() -> list[Files]:
    plan = Plan(
        "sharp-maml",
        "small",
        ("maml", "sharp-low"),
        3,
        30.0,
        None,
        "omniglot",
        {"a": Stage(100, DEPTHS[0], {"x": 1.0})},
    )
    return [{"plan.json": plan.to_json().encode()}]


def _read_plan(place: Path) -> Any:
    plan = Plan.from_file(place / "plan.json")
    return plan and plan.to_json()


def _pieces() -> list[Files]:
    return [
        {
            "piece.json": json.dumps(
                {"asked": {"a": 1}, "found": {"mean": 0.5, "scores": [1, 2]}}
            ).encode()
        }
    ]


def _kept(place: Path) -> Any:
    found = keeping.kept(place / "piece.json", {"a": 1}, lambda: {"mean": 0.0})
    if not isinstance(found, dict):
        raise AssertionError("a piece that is no mapping")
    return found


class _Given:
    fingerprint = "ab"
    config = TrainConfig()


def _studies() -> list[Files]:
    scores = {
        "metric": "accuracy",
        "scores": [0.5, 0.25],
        "inner_steps": 3,
        "settings": {"ways": 5},
    }
    return [{"measurements/scores-ab-test-0.json": json.dumps(scores).encode()}]


def _score(place: Path) -> Any:
    made = study.Study(place, 2, 1, 0, 0, (), {})
    with mock.patch.object(study, "evaluate", side_effect=_Again):
        try:
            found = made._score(_Given(), "test")  # type: ignore[arg-type]
        except _Again:
            return None
    return found.mean, found.ci95


class _Again(Exception):
    """Nothing usable was kept."""


def _report_file(place: Path) -> Any:
    report: SharpnessReport = read_report(place / "r.json")
    return report.to_json()


TARGETS = (
    Target("settings of a training (TOML)", _settings,
    lambda place: TrainConfig.from_toml(place / "config.toml").to_toml()),
    Target("checkpoint folder (meta.json, ...)", _checkpoints, _read_checkpoint, ("trainer.pt",)),
    Target("trainer.pt", _checkpoints, checkpoint.read_trainer, (".json", ".safetensors")),
    Target("run folder (best.json, config, log)", _run_folders, _read_run, (".safetensors", ".pt")),
    Target("metrics.jsonl", _run_folders, _read_log, (".safetensors", ".pt", "meta.json", "best.json", ".toml")),
    Target("Omniglot, zips", lambda: _omniglot(True), _read_omniglot),
    Target("Omniglot, folders", lambda: _omniglot(False), _read_omniglot),
    Target("Omniglot, .npz", _omniglot_arrays, _read_omniglot),
    Target("mini-ImageNet, csv and pictures", _mini_lists, lambda p: miniimagenet.load_miniimagenet(p, image_size=8)),
    Target("mini-ImageNet, zips", _mini_zips, lambda p: miniimagenet.load_miniimagenet(p, image_size=8)),
    Target("mini-ImageNet, pickles", _mini_pickles, lambda p: miniimagenet.load_miniimagenet(p, image_size=8)),
    Target("mini-ImageNet, HDF5", _mini_hdf5, lambda p: miniimagenet.load_miniimagenet(p, image_size=8)),
    Target("CIFAR-FS, lists and pictures", _cifarfs_lists, lambda p: cifarfs.load_cifarfs(p, image_size=8)),
    Target("CIFAR-FS, official pickles", _cifarfs_official, lambda p: cifarfs.load_cifarfs(p)),
    Target("CIFAR-FS, pickles by split", _cifarfs_pickles, lambda p: cifarfs.load_cifarfs(p)),
    Target("CIFAR-FS, split folders", lambda: [_tree("meta-")], lambda p: cifarfs.load_cifarfs(p, image_size=8)),
    Target("folder of images", _trees, lambda p: folder.load_folder(p, image_size=8, min_images=2)),
    Target("cache of image sets (.npz)", _cached, _read_cached),
    Target("plan of a reproduction (JSON)", _plans, _read_plan),
    Target("pieces of a reproduction (JSON)", _pieces, _kept),
    Target("report of a reproduction (JSON)", lambda: [{"r.json": _report()}], _report_file),
    Target("scores of a study (JSON)", _studies, _score),
)  # fmt: skip
