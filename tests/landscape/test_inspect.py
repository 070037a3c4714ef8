import json
import math

import pytest
import torch
from safetensors.torch import save_file

from landscape.checkpoint import Weights, read_weights
from landscape.guesses import architecture, guess, suggested_flags
from landscape.inspection import inspect_checkpoint, statistics

RESNET = {
    "conv1.weight": (16, 3, 3, 3),
    **{f"layer{s}.{b}.conv{c}.weight": (16, 16, 3, 3) for s in (1, 2, 3) for b in range(3) for c in (1, 2)},
    "bn1.running_mean": (16,),
    "linear.weight": (10, 64),
}  # fmt: skip


def imagenet(counts, convs):
    shapes = {"conv1.weight": (64, 3, 7, 7), "layer4.0.downsample.0.weight": (8, 8, 1, 1)}
    for stage, count in enumerate(counts, 1):
        for block in range(count):
            for conv in range(1, convs + 1):
                shapes[f"layer{stage}.{block}.conv{conv}.weight"] = (64, 64, 3, 3)
    return {**shapes, "fc.weight": (1000, 512)}


def weights(shapes, name="w.pt"):
    from pathlib import Path

    return Weights(Path(name), {key: torch.zeros(shape) for key, shape in shapes.items()})


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (RESNET, "ResNet-20 of the CIFAR kind (three stages), blocks 3-3-3"),
        (imagenet((2, 2, 2, 2), 2), "ResNet-18 of the ImageNet kind"),
        (imagenet((3, 4, 6, 3), 2), "ResNet-34 of the ImageNet kind"),
        (imagenet((3, 4, 6, 3), 3), "ResNet-50 of the ImageNet kind"),
        (imagenet((3, 4, 23, 3), 3), "ResNet-101 of the ImageNet kind"),
        (imagenet((2, 2, 2, 2), 2) | {"conv1.weight": (64, 3, 3, 3)}, "ResNet-18 of the CIFAR kind"),
        ({f"features.{i}.weight": (4, 4, 3, 3) for i in range(13)}, "VGG-16"),
        (
            {"wte.weight": (50257, 768), "wpe.weight": (1024, 768)}
            | {f"h.{i}.attn.c_attn.weight": (768, 2304) for i in range(12)},
            "GPT-2 of 12 layers, width 768, vocabulary 50257, context 1024",
        ),
        (
            {"transformer.wte.weight": (5, 4), "transformer.h.0.attn.c_attn.weight": (4, 12)},
            "GPT-2 of 1 layer, width 4, vocabulary 5",
        ),
        (
            {"bert.embeddings.word_embeddings.weight": (30, 8)}
            | {f"bert.encoder.layer.{i}.attention.self.query.weight": (8, 8) for i in range(2)},
            "BERT of 2 layers, width 8, vocabulary 30",
        ),
        (
            {"patch_embed.proj.weight": (192, 3, 16, 16), "blocks.0.attn.qkv.weight": (576, 192)},
            "vision transformer of 1 layer, width 192, patches 16x16",
        ),
        (
            {"embed_tokens.weight": (99, 8), "layers.0.self_attn.q_proj.weight": (8, 8)},
            "Llama-style transformer of 1 layer, width 8, vocabulary 99",
        ),
        ({"encoder.layers.0.self_attn.in_proj_weight": (24, 8)}, "torch.nn transformer of 1 layer, width 8"),
        (
            {"rnn.weight_ih_l0": (24, 5), "rnn.weight_hh_l0": (24, 8)},
            "GRU of 1 layer, hidden size 8, input size 5",
        ),
        ({"a.weight": (5, 3), "a.bias": (5,), "b.weight": (2, 5)}, "multilayer perceptron 3-5-2"),
        ({"a.weight": (5, 3), "b.weight": (2, 4)}, ""),
        ({"c.weight": (5, 3, 3, 3), "b.weight": (2, 4)}, "convolutional network of 1 convolutions"),
        ({f"layer{'9' * 5000}.0.conv1.weight": (1, 1, 1, 1)}, "convolutional network"),
        ({}, ""),
    ],
)  # fmt: skip
def test_families_are_guessed_from_names_and_shapes(shapes, family):
    found = architecture(shapes)
    assert found.startswith(family)
    assert bool(found) == bool(family)


def test_modules_of_torch_are_recognized():
    """The names are torch's own, not ours."""
    lstm = torch.nn.LSTM(5, 8, num_layers=2, bidirectional=True)
    shapes = {f"lstm.{name}": tuple(t.shape) for name, t in lstm.state_dict().items()}
    assert architecture(shapes) == "bidirectional LSTM of 2 layers, hidden size 8, input size 5"
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    encoder = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    shapes = {name: tuple(t.shape) for name, t in encoder.state_dict().items()}
    assert architecture(shapes) == "torch.nn transformer of 3 layers, width 8"


def test_what_else_is_guessed():
    found = {g.about: g.text for g in guess(weights(RESNET), {"pytorch-lightning_version": "2"})}
    assert found["classes"].startswith("10, or as many outputs: rows of linear.weight")
    assert found["input channels"] == "3"
    assert found["batch norm"] == "1 layers"
    assert found["origin"] == "PyTorch Lightning"
    table = torch.ones(7, 4)
    tied = Weights(weights({}).path, {"wte.weight": table, "head.weight": table})
    assert "tied to wte.weight: a vocabulary" in {g.about: g.text for g in guess(tied)}["classes"]
    shard = weights({"w": (1,)}, "model-00002-of-00003.safetensors")
    assert {g.about: g.text for g in guess(shard)}["part"].startswith("2 of 3")


@pytest.mark.parametrize(
    ("shapes", "name", "content", "flags"),
    [
        (RESNET, "w.pt", None, "--model cifar:resnet20 --data cifar10"),
        (RESNET, "a_noshort_b.t7", None, "--model cifar:resnet20-noshort --data cifar10"),
        (imagenet((2, 2, 2, 2), 2), "w.pt", None, "--model torchvision:resnet18 --data data.npz"),
        ({"w": (2,)}, "w.pt", {"arch": "vit_tiny", "amp_scaler": 1}, "--model timm:vit_tiny --data data.npz"),
        ({"w": (2,)}, "w.pt", {"arch": "x; rm", "amp_scaler": 1}, "--model file.py:factory --data data.npz"),
        (
            {"wte.weight": (5, 4), "h.0.attn.c_attn.weight": (4, 12)}, "w.pt", None,
            "--model file.py:factory --data tokens.npz --loss next_token",
        ),
    ],
)  # fmt: skip
def test_the_next_command_is_suggested(shapes, name, content, flags):
    assert " ".join(suggested_flags(weights(shapes, name), content)) == flags


def test_statistics_are_those_of_the_numbers():
    values = torch.randn(
        3, 700_001, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    values[0, :7] = 0.0
    for tensor in (values, values.T, values.T.contiguous()):  # in pieces, in either memory order
        row = statistics("w", tensor)
        assert row.shape == tuple(tensor.shape)
        expected = (
            values.norm(),
            values.mean(),
            values.std(correction=0),
            values.min(),
            values.max(),
        )
        found = (row.norm, row.mean, row.std, row.low, row.high)
        assert found == pytest.approx([float(value) for value in expected], rel=1e-12)
        assert row.zeros == 7 / values.numel()
        assert (row.nan, row.infinite) == (0, 0)


def test_statistics_of_a_mean_far_from_zero():
    tensor = torch.full((2_000_003,), 1e8, dtype=torch.float64)
    tensor[::2] += 1.0
    assert statistics("w", tensor).std == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.half, torch.float8_e4m3fn, torch.int64, torch.uint16, torch.complex64],
)
def test_statistics_of_every_dtype(dtype):
    row = statistics("w", torch.tensor([3.0, 4.0, 0.0, 0.0]).to(dtype))
    assert (row.norm, row.high, row.zeros) == (5.0, 4.0, 0.5)
    assert row.dtype == str(dtype).removeprefix("torch.")


def test_statistics_of_what_is_not_finite_and_of_nothing():
    row = statistics("w", torch.tensor([math.nan, math.inf, -math.inf, 2.0]))
    assert (row.nan, row.infinite, row.mean, row.high) == (1, 2, 2.0, 2.0)
    assert math.isnan(row.norm)
    assert math.isnan(statistics("w", torch.tensor([math.nan])).mean)
    empty = statistics("w", torch.empty(0, 3))
    assert (empty.norm, empty.zeros, empty.shape) == (0.0, 0.0, (0, 3))
    assert statistics("w", torch.tensor(2.0)).norm == 2.0
    assert statistics("w", torch.tensor([1e200], dtype=torch.float64)).norm == 1e200


def test_what_lies_beside_the_weights(tmp_path):
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25, momentum=0.9, weight_decay=5e-4)
    content = {
        "net": network.state_dict(), "acc": 0.5, "epoch": torch.tensor(7), "optimizer": optimizer.state_dict(),
        "note": "bad\x1b[31m\nline", "history": [1, 2], "sizes": torch.ones(2),
    }  # fmt: skip
    torch.save(content, tmp_path / "w.pt")
    found = inspect_checkpoint(tmp_path / "w.pt")
    assert found.beside == {
        "acc": "0.5", "epoch": "7", "optimizer": "2 entries", "note": "bad?[31m?line",
        "history": "list of 2", "sizes": "tensor of shape (2,)",
    }  # fmt: skip
    expected = {"entry": "optimizer", "type": "SGD", "groups": 1, "lr": 0.25, "momentum": 0.9}
    assert found.optimizer.items() >= expected.items()
    assert found.dtypes == {"float32": 8}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (torch.optim.Adam, "Adam"),
        (torch.optim.AdamW, "AdamW"),
        (torch.optim.RMSprop, "RMSprop"),
        (torch.optim.Adagrad, "Adagrad"),
    ],
)
def test_optimizers_are_told_apart(tmp_path, make, kind):
    network = torch.nn.Linear(3, 2)
    states = [make(network.parameters(), lr=0.1).state_dict()]
    torch.save({"state_dict": network.state_dict(), "optimizer_states": states}, tmp_path / "w.pt")
    found = inspect_checkpoint(tmp_path / "w.pt").optimizer
    assert (found["entry"], found["type"], found["lr"]) == ("optimizer_states", kind, 0.1)


def test_the_document(place, command):
    torch.save(
        {"state_dict": {"module.w": torch.tensor([[3.0, 4.0]])}, "ema": {"w": torch.ones(2)}},
        "v.ckpt",
    )
    status, out, err = command("inspect", "v.ckpt", "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document.pop("guesses")["architecture"] == "multilayer perceptron 2-1"
    assert document == {
        "file": "v.ckpt", "fingerprint": read_weights("v.ckpt").fingerprint, "entries": 2,
        "found_under": "state_dict", "prefix_removed": "module.", "dtypes": {"float32": 2}, "ignored": 0,
        "other_weights": ["ema"], "tied": {}, "not_finite": [], "beside": {"ema": "1 entries"}, "optimizer": {},
        "next_command": "landscape sharpness v.ckpt --model file.py:factory --data data.npz",
        "tensors": [
            {
                "name": "w", "shape": [1, 2], "dtype": "float32", "norm": 5.0, "mean": 3.5, "std": 0.5,
                "min": 3.0, "max": 4.0, "zeros": 0.0, "nan": 0, "infinite": 0,
            }
        ],
    }  # fmt: skip
    _, out, _ = command("inspect", "v.ckpt", "--json", "--key", "ema")
    document = json.loads(out)
    assert (document["entries"], document["found_under"]) == (2, "ema")
    assert document["next_command"].endswith(" --key ema")


def test_the_table(place, command):
    table = torch.tensor([[3.0, 4.0]])
    torch.save({"model": {"module.w": table, "module.v": table, "module.n": 3}}, "v.ckpt")
    status, out, err = command("inspect", "v.ckpt")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for line in (
        "prefix_removed: module.",
        "ignored: 1 entries that are no tensors",
        "dtypes: 2 float32",
    ):
        assert line in lines
    assert lines[-2].split()[:6] == ["w", "[1,", "2]", "float32", "norm", "5"]
    assert lines[-1].endswith("zeros 0.0%  same as w")


def test_numbers_that_are_not_finite_are_told_loudly(place, command):
    torch.save({"a": torch.ones(2), "w": torch.tensor([math.nan, math.inf, 1.0])}, "v.pt")
    status, out, err = command("inspect", "v.pt")
    assert status == 1
    assert out.splitlines()[-1].endswith("1 NaN!  1 INF!")
    assert err == "error: v.pt has numbers that are not finite in w\n"
    status, out, _ = command("inspect", "v.pt", "--json")
    assert status == 1
    assert json.loads(out)["not_finite"] == ["w"]


def test_the_flags_of_reading(place, command):
    torch.save(torch.nn.Linear(2, 1), "v.pt")
    status, out, err = command("inspect", "v.pt")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "--allow torch.nn.modules.linear.Linear" in err
    status, out, err = command("inspect", "v.pt", "--trust-pickle")
    assert status == 0
    assert (
        err == "warning: v.pt is unpickled on your word: code that it names runs with your rights\n"
    )
    assert "--trust-pickle" in out
    torch.save({"w": torch.ones(1), "c": json.JSONDecodeError}, "v.pt")
    status, out, _ = command("inspect", "v.pt", "--allow", "json.decoder.JSONDecodeError")
    assert status == 0
    assert "--allow json.decoder.JSONDecodeError" in out


def test_a_folder_of_hugging_face(place, command):
    (place / "gpt").mkdir()
    (place / "gpt" / "config.json").write_text("{}")
    save_file({"w": torch.ones(2)}, "gpt/model.safetensors")
    status, out, _ = command("inspect", "gpt")
    assert status == 0
    assert "guess, origin: Hugging Face" in out
    assert "--model hf:gpt" in out
