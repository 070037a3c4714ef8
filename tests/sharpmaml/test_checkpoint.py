"""Checkpoints are read back exactly or refused in one line; nothing in them can run code."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpmaml import checkpoint as checkpoints


@pytest.fixture
def copy(sine_run, tmp_path):
    return shutil.copytree(
        checkpoints.steps(sine_run)[-1], tmp_path / "run/checkpoints/step_000004"
    )


def edit_meta(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **changes}))


def refused(folder, says):
    with pytest.raises(checkpoints.CheckpointError, match=says) as caught:
        checkpoints.read(folder)
    assert "\n" not in str(caught.value)


def test_locate_takes_a_checkpoint_or_a_run(sine_run, copy):
    assert checkpoints.read(copy).step == 4
    assert checkpoints.locate(copy.parent.parent) == copy
    (copy.parent.parent / "best.json").write_text("{broken")
    assert checkpoints.locate(copy.parent.parent) == copy
    (copy.parent.parent / "best.json").write_text('{"checkpoint": "../../elsewhere"}')
    assert checkpoints.locate(copy.parent.parent) == copy


def test_another_architecture(copy):
    edit_meta(copy, model={"factory": "mlp", "arguments": {"hidden": 5}})
    refused(copy, r"another architecture.*shape")
    edit_meta(copy, model={"factory": "mlp", "arguments": {"hidden": 4, "layers": 1}})
    refused(copy, r"another architecture")


def test_missing_tensor(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors.popitem()
    save_file(tensors, copy / "model.safetensors")
    refused(copy, "another architecture.*missing")


def test_weights_of_another_run_are_noticed(copy):
    tensors = {k: v + 1 for k, v in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors")
    refused(copy, "fingerprint")


def test_truncated_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(copy, "cannot be read")


def test_a_factory_name_is_never_imported(copy):
    edit_meta(copy, model={"factory": "os:system", "arguments": {}})
    refused(copy, "unknown model 'os:system'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[]", "schema 'list'"),
        ('{"schema": "x/9"}', "schema 'x/9'"),
        ("\x00", "not JSON"),
    ],
)
def test_damaged_meta(copy, text, says):
    (copy / "meta.json").write_text(text)
    refused(copy, says)


def test_incomplete_meta(copy):
    meta = json.loads((copy / "meta.json").read_text())
    del meta["model"]
    (copy / "meta.json").write_text(json.dumps(meta))
    refused(copy, "lacks 'model'")
    edit_meta(copy, model={"factory": "mlp", "arguments": {}}, config={"ways": "five"})
    refused(copy, "ways is 'five'")


def test_nothing_there(tmp_path):
    refused(tmp_path, "has no checkpoint")
    refused(tmp_path / "gone", "does not exist")


def test_a_pickle_that_wants_to_run_code_is_refused(copy):
    class Evil:
        def __reduce__(self):
            return (open, (str(copy / "ran"), "w"))

    (copy / "trainer.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(checkpoints.CheckpointError, match=r"trainer.pt cannot be read"):
        checkpoints.read_trainer(copy)
    assert not (copy / "ran").exists()


def test_a_write_that_fails_leaves_nothing(copy, tmp_path, monkeypatch):
    given = checkpoints.read(copy)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(tmp_path / "out", 1, given.space, given.theta, {}, {})
    assert list((tmp_path / "out").iterdir()) == []
