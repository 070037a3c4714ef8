"""``--model``: every form of a name, with the weights of a checkpoint in the network it makes."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from landscape.calls import parse
from landscape.checkpoint import Weights, read_weights
from landscape.datasets import Reading
from landscape.loading import fill
from landscape.networks import network
from landscape.networks_cifar import ResNet, named
from landscape.source import data_objective, describes_itself

SHARED = Path(__file__).parents[3] / "shared" / "data"

NET = """
import torch

def make(inputs, outputs=2, *, bias=True, names=()):
    return torch.nn.Linear(inputs, outputs, bias=bias)
"""


def weights(tensors, path="w.pt"):
    return Weights(Path(path), dict(tensors))


def refusal(name, held):
    with pytest.raises(ValueError) as caught:
        network(name, held)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


class Small(nn.Module):
    """Stands for a model of a library: a body, and a head of ``num_classes``."""

    def __init__(self, num_classes=1000, width=3):
        super().__init__()
        self.body = nn.Linear(2, width)
        self.aux = nn.Linear(width, num_classes)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture
def library(monkeypatch):
    """A torchvision and a timm that record how they were called."""
    calls = []

    def get_model(name, **options):
        assert options.pop("weights") is None
        calls.append((name, options))
        if name not in ("small", "wrapped"):
            raise ValueError(f"Unknown model {name}")
        made = Small(**options)
        return made if name == "small" else nn.ModuleDict({"model": made})

    def create_model(name, pretrained, **options):
        assert pretrained is False
        return get_model(name, weights=None, **options)

    vision, models, timm = (
        ModuleType("torchvision"),
        ModuleType("torchvision.models"),
        ModuleType("timm"),
    )
    models.get_model, timm.create_model = get_model, create_model
    for module in (vision, models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_arguments_reach_the_factory(place):
    held = weights({"weight": torch.ones(4, 3)})
    made = network("net.py:make(3, outputs=4, bias=False)", held)
    assert torch.equal(made.module.weight, torch.ones(4, 3))
    assert made.module.bias is None
    assert "are not literals" in refusal("net.py:make(open('x'))", held)
    assert "failed: TypeError" in refusal("net.py:make()", held)
    assert "failed: TypeError" in refusal("net.py:make(3, depth=1)", held)


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("a.py:f(1, 'b:c', x=[1, -2.5], y={'k': (None, True)})",
         (1, "b:c"), {"x": [1, -2.5], "y": {"k": (None, True)}}),
        ("my (old)/a.py:f(')')", (")",), {}),
        ("a.py:f()", (), {}),
    ],
)  # fmt: skip
def test_calls(text, args, kwargs):
    call = parse(text, "--model")
    assert (call.args, call.kwargs, call.given) == (args, kwargs, True)
    assert call.name == text[: text.rindex("f(") + 1]


@pytest.mark.parametrize(
    "inside",
    [
        "x",
        "1)(2",
        "1), g(2",
        "**{'a': 1}",
        "*[1]",
        "__import__('os')",
        "1 if 1 else 2",
        "(" * 4000,
        "a=",
    ],
)
def test_what_is_no_literal_is_refused(inside):
    with pytest.raises(ValueError, match="--model .* has arguments that are not literals"):
        parse(f"a.py:f({inside})", "--model")


def test_names_without_arguments_stay_whole():
    for text in ("a.py:f", "data (copy)", "folder(1).npz", "package.module:f"):
        call = parse(text, "--data")
        assert (call.name, call.given) == (text, False)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_library_makes_the_network_without_its_own_weights(library, package):
    state = Small(1000).state_dict()
    made = network(f"{package}:small", weights(state))
    assert library == [("small", {})]
    assert made.settings == {}
    assert torch.equal(made.module.head.weight, state["head.weight"])


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_the_number_of_classes_is_read_off_the_head(library, package):
    state = {f"module.{k}": v for k, v in Small(7).state_dict().items()}
    held = Weights(
        Path("w.pt"), {k.removeprefix("module."): v for k, v in state.items()}, "", "module."
    )
    made = network(f"{package}:small", held)
    assert library == [("small", {}), ("small", {"num_classes": 7})]
    assert made.settings == {"num_classes_guessed": 7}
    assert torch.equal(made.module.head.weight, state["module.head.weight"])
    network(f"{package}:small(num_classes=7)", held)
    assert library[2:] == [("small", {"num_classes": 7})]


def test_the_head_is_found_under_a_prefix_that_the_model_has_itself(library):
    held = Weights(Path("w.pt"), dict(Small(7).state_dict()), "", "model.")
    assert network("timm:wrapped", held).settings == {"num_classes_guessed": 7}


def test_only_the_head_may_differ(library):
    text = refusal("timm:small", weights(Small(7, width=5).state_dict()))
    assert len(library) == 1  # nothing was guessed
    assert "of another shape" in text and "landscape inspect w.pt" in text
    text = refusal("timm:small(num_classes=5)", weights(Small(7).state_dict()))
    assert "4 of another shape: aux.weight is (7, 3), the model wants (5, 3)" in text


def test_a_head_of_another_size_is_named():
    text = "w.pt is of another architecture than Linear: 2 of another shape"
    with pytest.raises(ValueError, match="a head of 3 classes where the model has 2") as caught:
        fill(nn.Linear(4, 2), weights(nn.Linear(4, 3).state_dict()))
    assert str(caught.value).startswith(text)


def test_a_prefix_of_its_own_is_named():
    state = nn.Linear(2, 2).state_dict()
    with pytest.raises(ValueError, match="the checkpoint's names have 'encoder.' before them"):
        fill(nn.Linear(2, 2), weights({f"encoder.{k}": v for k, v in state.items()}))
    with pytest.raises(ValueError, match="the model's names have '0.' before them"):
        fill(nn.Sequential(nn.Linear(2, 2)), weights(state))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision:large", "'torchvision:large' failed: ValueError: Unknown model large"),
        ("timm:hf-hub:someone/model", "nothing is fetched"),
        ("timm:small(pretrained=True)", "sets pretrained: leave it out"),
        ("torchvision:small(weights='DEFAULT')", "sets weights: leave it out"),
        ("cifar:resnet21", "cifar:resnet21 is unknown: expected cifar: and one of resnet20"),
        ("cifar:resnet20000000000000000006", "is unknown"),
        ("cifar:make", "write file.py:function"),
    ],
)
def test_refusals(library, name, expected):
    assert expected in refusal(name, weights({}))


@pytest.mark.parametrize(
    ("name", "extra"), [("torchvision:resnet18", "torchvision"), ("timm:x", "timm"), ("hf:x", "hf")]
)
def test_a_missing_extra_is_one_line(monkeypatch, name, extra):
    for module in ("torchvision", "torchvision.models", "timm", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install 'sharp-landscape[{extra}]'" in refusal(name, weights({}))


class Tied(nn.Module):
    """Stands for a language model of transformers: made from a config, tied, returns ``logits``."""

    def __init__(self, config):
        super().__init__()
        assert config.use_cache is False
        self.wte = nn.Embedding(config.vocab_size, 3)
        self.lm_head = nn.Linear(3, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens):
        return SimpleNamespace(logits=self.lm_head(torch.tanh(self.wte(tokens))))


@pytest.fixture
def hugging_face(monkeypatch, tmp_path):
    """A transformers with one architecture, and a folder that ``save_pretrained`` could have written."""
    asked = []

    def from_pretrained(name, **options):
        asked.append((name, options))
        if not Path(name).is_dir():
            raise OSError(f"{name} is not in the cache")
        config = json.loads((Path(name) / "config.json").read_text())
        return SimpleNamespace(**config, use_cache=True)

    module = ModuleType("transformers")
    module.AutoConfig = SimpleNamespace(from_pretrained=from_pretrained)
    module.TiedLM = Tied
    monkeypatch.setitem(sys.modules, "transformers", module)
    folder = tmp_path / "gpt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["TiedLM"], "vocab_size": 5}))
    save_file({"wte.weight": torch.randn(5, 3)}, folder / "model.safetensors")
    return folder, asked


def test_a_hugging_face_folder_needs_data_only(hugging_face, tmp_path):
    folder, asked = hugging_face
    tokens = np.random.default_rng(0).integers(0, 5, (6, 4))
    np.savez(tmp_path / "t.npz", tokens=tokens)
    assert describes_itself(folder) is None
    for checkpoint, model in ((folder, None), (folder / "model.safetensors", f"hf:{folder}")):
        made = data_objective(
            checkpoint, model, str(tmp_path / "t.npz"), "next_token", "eval", "float64", "cpu"
        )
        assert asked[-1] == (str(folder), {"local_files_only": True, "trust_remote_code": False})
        assert made.settings["architecture"] == "TiedLM"
        table = read_weights(folder / "model.safetensors").tensors["wte.weight"].double()
        assert torch.equal(made.theta, table.flatten())
        logits = torch.tanh(table[torch.from_numpy(tokens)]) @ table.T
        expected = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), torch.from_numpy(tokens[:, 1:]).flatten()
        )
        torch.testing.assert_close(made.value(made.theta), expected)


def test_hugging_face_refusals(hugging_face):
    folder, _ = hugging_face
    held = read_weights(folder / "model.safetensors")
    assert "is not in the cache" in refusal("hf:someone/model", held)
    (folder / "empty").mkdir()
    assert "has no config.json" in refusal(f"hf:{folder / 'empty'}", held)
    for written, told in (
        ({"architectures": ["Foreign"]}, "asks for Foreign, which is not a class of transformers"),
        ({}, "asks for no architecture"),
    ):
        (folder / "config.json").write_text(json.dumps(written))
        assert told in refusal(f"hf:{folder}", held)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has a config\.json but no weights"):
        describes_itself(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="holds its weights in several files"):
        describes_itself(folder)


def test_tied_tensors_are_stored_once_or_twice_but_agree():
    config = SimpleNamespace(vocab_size=4, use_cache=False)
    table = torch.randn(4, 3)
    for names in (["wte.weight"], ["lm_head.weight"], ["wte.weight", "lm_head.weight"]):
        net = Tied(config)
        fill(net, weights(dict.fromkeys(names, table)))
        assert torch.equal(net.wte.weight, table) and net.lm_head.weight is net.wte.weight
    with pytest.raises(ValueError, match="different values for wte.weight and lm_head.weight"):
        fill(Tied(config), weights({"wte.weight": table, "lm_head.weight": table + 1}))
    with pytest.raises(ValueError, match="2 missing: wte.weight, lm_head.weight"):
        fill(Tied(config), weights({}))


def test_making_a_network_leaves_the_random_state(place):
    held = [("net.py:make(3)", nn.Linear(3, 2)), ("cifar:resnet8", ResNet(1, False))]
    before = torch.random.get_rng_state()
    for name, module in held:
        network(name, weights(module.state_dict()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_cifar_networks():
    """Parameter counts of He et al. 2016, table 6, and of the files themselves."""
    projected = {"layer2.0.shortcut.0.weight": torch.zeros(1)}
    for name, held, count in (
        ("resnet20", {}, 269_722), ("resnet56", projected, 855_770),
        ("resnet56-noshort", {}, 853_018), ("resnet110", {}, 1_727_962),
    ):  # fmt: skip
        assert sum(p.numel() for p in named(name, held).parameters()) == count
    assert len(named("resnet20", {"linear.weight": torch.zeros(100, 64)}).linear.weight) == 100


def test_the_three_kinds_of_shortcut():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        nets = [ResNet(1, True), ResNet(1, False), ResNet(1, False, shortcuts=False)]
    for net in nets:
        for name, module in net.eval().named_modules():
            if name.endswith("bn2"):
                nn.init.zeros_(module.weight)  # what the convolutions add is zero
    assert nets[0](x).std(0).max() > 0
    padded = nets[1]
    hidden = F.relu(padded.bn1(padded.conv1(x)))
    half = torch.zeros(2, 32, 16, 16)
    half[:, 8:24] = hidden[:, :, ::2, ::2]
    quarter = torch.zeros(2, 64, 8, 8)
    quarter[:, 16:48] = half[:, :, ::2, ::2]
    torch.testing.assert_close(padded(x), padded.linear(quarter.mean((2, 3))))
    torch.testing.assert_close(nets[2](x), nets[2].linear.bias.expand(2, 10))  # nothing is left


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("file", "model", "numbers", "accuracy", "mean", "std"),
    [
        ("resnet20-12fca82f.th", "resnet20", "imagenet", 0.9163,
         (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet56_sgd_lr0.1_bs128_wd5e-4_model_300.t7", "resnet56", "li2018", 0.9356,
         (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
        ("resnet56_noshort_sgd_lr0.1_bs128_wd5e-4_model_300.t7", "resnet56-noshort", "li2018", 0.8670,
         (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    ],
)  # fmt: skip
def test_published_checkpoints(file, model, numbers, accuracy, mean, std):
    """100 of the 932 test images; the accuracy published beside the files is within 3 standard errors."""
    made = data_objective(
        SHARED / "checkpoints" / file, f"cifar:{model}", "cifar10", "cross_entropy", "eval", None, "cpu",
        reading=Reading("test", 100, numbers, None, SHARED),
    )  # fmt: skip
    found = made.metrics(made.theta)
    assert abs(found["accuracy"] - accuracy) < 3 * (accuracy * (1 - accuracy) / 100) ** 0.5
    with np.load(SHARED / "cifar10.npz") as stored:
        every, labels = stored["test_images"], stored["test_labels"]
    rows = torch.from_numpy(every).float() / 255
    rows = (rows - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    first = made.batches[0].args[0][0]
    (match,) = torch.nonzero((rows - first).abs().flatten(1).amax(1) < 1e-5)
    assert int(made.batches[0].target[0]) == int(labels[int(match)])
