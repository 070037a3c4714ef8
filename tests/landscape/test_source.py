import json
import sys

import numpy as np
import pytest
import torch
from problems import conv_net

import sharpmaml
from landscape import source
from landscape.checkpoint import read_weights
from landscape.cli_source import Source
from landscape.datasets import Reading
from landscape.loading import fill
from landscape.source import data_objective, describes_itself, locate, meta_provider

NET = """
import torch

def make():
    return torch.nn.Linear(2, 3)

def other():
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 3))

def needs_an_argument(width):
    return make()

def number():
    return 3

def batches():
    g = torch.Generator().manual_seed(0)
    for size in (4, 2):
        yield torch.randn(size, 2, generator=g), torch.arange(size) % 3

def wide_batches():
    return [(torch.ones(4, 5), torch.zeros(4, dtype=torch.long))]

def no_batches():
    return []

def squared(output, y):
    return (output.sum(1) - y) ** 2

def scaled(factor, name="squared"):
    return lambda output, y: factor * squared(output, y)

def drawn():
    return torch.randn(4, 2), torch.arange(4) % 3

class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = make()

    def forward(self, x):
        return self.model(x)
"""
FITS = {"weight": torch.arange(6.0).reshape(3, 2) / 5, "bias": torch.tensor([0.1, -0.2, 0.3])}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a network, data and weights that fit together."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.save({"state_dict": FITS}, tmp_path / "w.pt")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "d.npz", x=rng.standard_normal((6, 2)), y=np.array([0, 1, 2] * 2, dtype=np.uint8)
    )
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of ours with two checkpoints, of which the first counts as the best."""
    config = sharpmaml.TrainConfig(
        data="sinusoid", iterations=2, channels=4, meta_batch=1, shots=3, queries=3,
        inner_rate=0.01, validation_episodes=2, checkpoint_every=1, validate_every=1, device="cpu",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("source") / "run"
    sharpmaml.train(config, path)
    best = json.loads((path / "best.json").read_text()) | {"checkpoint": "step_000001"}
    (path / "best.json").write_text(json.dumps(best))
    return path


def objective(
    place, checkpoint="w.pt", model="net.py:make", data="d.npz", loss="cross_entropy", **more
):
    options = {"norm": "eval", "dtype": None, "device": "cpu"} | more
    return data_objective(place / checkpoint, model, data, loss, **options)


def refusal(place, **options):
    with pytest.raises(ValueError) as caught:
        objective(place, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expected_loss(place):
    with np.load(place / "d.npz") as arrays:
        x, y = torch.from_numpy(arrays["x"]).float(), torch.from_numpy(arrays["y"]).long()
    return torch.nn.functional.cross_entropy(x @ FITS["weight"].T + FITS["bias"], y)


def test_weights_network_and_arrays_make_the_loss(place):
    made = objective(place)
    assert made.theta.tolist() == [*FITS["weight"].flatten().tolist(), *FITS["bias"].tolist()]
    torch.testing.assert_close(made.value(made.theta), expected_loss(place))
    fingerprint = read_weights(place / "w.pt").fingerprint
    assert made.settings["checkpoint"] == fingerprint
    assert (made.settings["model"], made.settings["data"]) == ("net.py:make", "d.npz")


def test_a_factory_of_batches_and_a_loss_of_the_user(place):
    made = objective(place, data="net.py:batches", loss="net.py:squared")
    assert made.settings["batches"] == 2
    assert made.settings["examples"] == 6
    g = torch.Generator().manual_seed(0)
    total = 0.0
    for size in (4, 2):
        output = torch.randn(size, 2, generator=g) @ FITS["weight"].T + FITS["bias"]
        total += float(((output.sum(1) - torch.arange(size) % 3) ** 2).sum())
    assert float(made.value(made.theta)) == pytest.approx(total / 6, rel=1e-5)


def test_a_loss_with_arguments_is_what_its_function_returns(place):
    one, three = (
        objective(place, data="net.py:batches", loss=loss)
        for loss in ("net.py:squared", "net.py:scaled(3, name='x')")
    )
    torch.testing.assert_close(three.value(three.theta), 3 * one.value(one.theta))


def test_batches_are_128_unless_told_or_coupled(place):
    x, y = np.random.default_rng(0).standard_normal((300, 2)), np.arange(300) % 3
    np.savez(place / "many.npz", x=x, y=y)
    for options, batches, size in (
        ({}, 3, 128), ({"batch_size": 200}, 2, 200), ({"norm": "batch"}, 1, None),
        ({"norm": "batch", "batch_size": 100}, 3, 100),
    ):  # fmt: skip
        made = objective(place, data="many.npz", **options)
        assert (made.settings["batches"], made.settings["batch_size"]) == (batches, size)
        assert made.settings["population"] == 300
    few = objective(place, data="many.npz", reading=Reading(examples=10))
    assert few.examples == 10


def test_random_data_of_a_factory_are_the_same_for_every_checkpoint(place):
    before = torch.random.get_rng_state()
    first, second = (objective(place, data="net.py:drawn") for _ in range(2))
    assert first.settings["data_sha256"] == second.settings["data_sha256"]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_entry_of_the_file_that_holds_the_weights(place):
    other = {name: 2 * tensor for name, tensor in FITS.items()}
    torch.save({"state_dict": FITS, "teacher": other}, place / "two.pt")
    assert objective(place, checkpoint="two.pt").theta[1] == FITS["weight"][0, 1]
    assert objective(place, checkpoint="two.pt", key="teacher").theta[1] == 2 * FITS["weight"][0, 1]


def test_examples_without_a_counted_label_are_refused(place):
    np.savez(place / "void.npz", x=np.ones((4, 2)), y=np.array([0, -100, 1, -100]))
    assert "2 of 4 examples have no label that counts" in refusal(place, data="void.npz")


def test_flags_of_other_checkpoints_are_refused_for_ours(run):
    for flag, value in (
        ("examples", 5), ("batch_size", 2), ("standardize", "none"), ("image_size", 3), ("key", "ema"),
        ("allow", ("a.B",)), ("trust_pickle", True),
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match=f"--{flag.replace('_', '-')} is for other checkpoints"
        ):
            Source(device="cpu", **{flag: value}).objective(run)


def test_split_depends_on_the_kind_of_checkpoint(run, place):
    for part, expected in ((None, "test"), ("val", "val")):
        made = Source(device="cpu", episodes=1, part=part).objective(run)
        assert made.settings["split"] == expected
    x = np.array([[1.0, 0.0]])
    np.savez(place / "s.npz", x_train=x, y_train=[0], x_test=2 * x, y_test=[0])
    for part, expected in ((None, "train"), ("test", "test")):
        source = Source("net.py:make", "s.npz", device="cpu", part=part)
        made = source.objective(place / "w.pt")
        assert made.settings["split"] == expected
        assert float(made.batches[0].args[0][0, 0]) == (2 if expected == "test" else 1)
    with pytest.raises(ValueError, match="--split is 'all': expected train, val or test"):
        Source("net.py:make", "s.npz", part="all").objective(place / "w.pt")


def test_a_factory_in_a_module(place):
    assert objective(place, model="net:make", data="net:batches").theta.numel() == 9


def test_dtype(place):
    assert objective(place).theta.dtype == torch.float32
    assert objective(place, dtype="float64").theta.dtype == torch.float64


@pytest.mark.parametrize("prefix", ["model.", "module.model.", "_orig_mod.model."])
def test_a_model_that_itself_has_the_prefix(place, prefix):
    torch.save({prefix + name: t for name, t in FITS.items()}, place / "p.pt")
    for factory in ("net.py:make", "net.py:Wrapped"):
        made = objective(place, checkpoint="p.pt", model=factory)
        torch.testing.assert_close(made.value(made.theta), expected_loss(place))


def test_another_architecture_is_told_name_by_name(place):
    text = refusal(place, model="net.py:other")
    assert "w.pt is of another architecture than Sequential" in text
    assert "4 missing: 0.weight, 0.bias, 1.weight" in text
    assert "2 unexpected: weight, bias" in text
    torch.save({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, place / "s.pt")
    text = refusal(place, checkpoint="s.pt")
    assert "1 of another shape: weight is (3, 4), the model wants (3, 2)" in text
    assert "missing" not in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"checkpoint": "none.pt"}, "none.pt does not exist"),
        ({"checkpoint": "none.pt", "model": None}, "none.pt does not exist"),
        ({"model": None}, "add --model package.module:factory"),
        ({"data": None}, "and --data file.npz"),
        ({"model": "net"}, "--model is 'net'"),
        ({"data": "net"}, "--data is 'net'"),
        ({"model": "net.py:number"}, "made a int, expected a torch.nn.Module"),
        ({"model": "net.py:FITS"}, "no attribute 'FITS'"),
        ({"model": "net.py:torch"}, "expected a function to call"),
        ({"model": "net.py:needs_an_argument"}, "failed: TypeError"),
        ({"data": "net.py:batches", "batch_size": 2}, "makes batches of its own"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"loss": "net.py:number()"}, "--loss 'net.py:number()' is a int"),
        ({"loss": "net.py:torch"}, "--loss 'net.py:torch' is a module"),
        ({"model": "net.py:make(width)"}, "are not literals"),
        ({"data": "net.py:number"}, "--data net.py:number made a int, expected (x, y) batches"),
        ({"data": "net.py:no_batches"}, "no example"),
        ({"data": "net.py:wide_batches"}, "do not fit together: RuntimeError"),
        ({"loss": "no_such_loss"}, "unknown loss 'no_such_loss'"),
        ({"loss": "relu"}, "do not fit together: TypeError"),
        ({"norm": "group"}, "unknown norm mode 'group'"),
        ({"device": "quantum"}, "device 'quantum' is not usable here"),
    ],
)
def test_refusals(place, options, expected):
    assert expected in refusal(place, **options)


def test_labels_out_of_range_are_one_line(place):
    np.savez(place / "bad.npz", x=np.ones((2, 2)), y=np.array([0, 7]))
    assert "do not fit together: IndexError" in refusal(place, data="bad.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.ones((4, 2))},
        {"x": np.ones((4, 2)), "labels": np.zeros(4)},
        {"x": np.ones((4, 2)), "y": np.array(["a"] * 4)},
        {"x": np.ones((4, 2)), "y": np.array([None] * 4)},
    ],
)
def test_arrays_that_are_not_there_or_no_numbers(place, arrays):
    np.savez(place / "bad.npz", **arrays)
    assert "bad.npz is not an .npz file with arrays x and y" in refusal(place, data="bad.npz")


def test_arrays_of_unequal_length(place):
    np.savez(place / "bad.npz", x=np.ones((4, 2)), y=np.zeros(3, dtype=int))
    assert "x of shape (4, 2) and y of shape (3,)" in refusal(place, data="bad.npz")


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "npy"])
def test_damaged_arrays(place, damage):
    path = place / "bad.npz"
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif damage != "missing":
        whole = (place / "d.npz").read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": whole[:300]}[damage])
    assert "bad.npz is not an .npz file" in refusal(place, data="bad.npz")


def test_our_folders_describe_themselves(run, place):
    schema = "sharpmaml.checkpoint/1"
    assert describes_itself(run) == schema
    assert describes_itself(run / "checkpoints" / "step_000001") == schema
    assert describes_itself(place / "w.pt") is None
    assert describes_itself(place / "none") is None
    made = meta_provider(schema)(run, episodes=2, device="cpu")
    assert made.settings["objective"] == "meta"
    assert made.settings["tasks"] == 2


def test_a_run_is_spoken_for_by_the_checkpoint_that_analysis_reads(run):
    assert locate(run) == run / "checkpoints" / "step_000001"  # the best, not the last
    assert locate(run / "checkpoints" / "step_000002").name == "step_000002"
    made = meta_provider("sharpmaml.checkpoint/1")(run, episodes=1, device="cpu")
    assert source.description(locate(run))["fingerprint"] == made.settings["checkpoint"]


def test_unknown_schemas_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match="has no checkpoint in it"):
        describes_itself(tmp_path)
    for damaged in ("{", "[]", "{}", '"text"'):
        (tmp_path / "meta.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"meta\.json is damaged"):
            describes_itself(tmp_path)
    (tmp_path / "meta.json").write_text('{"schema": "os:system"}')
    schema = describes_itself(tmp_path)
    assert schema == "os:system"
    with pytest.raises(ValueError, match="unknown checkpoint schema 'os:system': expected one of"):
        meta_provider(schema)
    with pytest.raises(ValueError, match="unknown checkpoint schema"):
        locate(tmp_path)


def test_old_checkpoints_lack_the_count_of_batches(tmp_path):
    """As the ResNets of Li et al. 2018 do."""
    net = conv_net()
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    assert len(state) == len(net.state_dict()) - 1
    torch.save(state, tmp_path / "w.pt")
    other = conv_net()
    with torch.no_grad():
        other.conv.weight.zero_()
        other.norm.num_batches_tracked.fill_(7)
    fill(other, read_weights(tmp_path / "w.pt"))
    assert torch.equal(other.conv.weight, net.conv.weight)
    assert int(other.norm.num_batches_tracked) == 7
