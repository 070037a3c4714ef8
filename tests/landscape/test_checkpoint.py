import json
import os
import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file

from landscape.checkpoint import Weights, read_weights

PLAIN = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.5, -2.0])}


class Evil:
    """A pickle that makes a file when it is executed."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in PLAIN.items()}


def same(weights):
    return list(weights.tensors) == list(PLAIN) and all(
        torch.equal(weights.tensors[name], PLAIN[name]) for name in PLAIN
    )


def refusal(path):
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".t7", ".ckpt", ".bin"])
def test_a_plain_state_dict(tmp_path, suffix):
    torch.save(PLAIN, tmp_path / f"w{suffix}")
    weights = read_weights(tmp_path / f"w{suffix}")
    assert same(weights)
    assert (weights.key, weights.prefix, weights.path) == ("", "", tmp_path / f"w{suffix}")


def test_safetensors(tmp_path):
    save_file(prefixed("module."), tmp_path / "w.safetensors")
    weights = read_weights(str(tmp_path / "w.safetensors"))
    assert sorted(weights.tensors) == sorted(PLAIN)
    assert weights.prefix == "module."


def test_the_format_before_zip_files(tmp_path):
    torch.save({"state_dict": PLAIN}, tmp_path / "w.th", _use_new_zipfile_serialization=False)
    assert (tmp_path / "w.th").read_bytes()[:2] != b"PK"
    assert same(read_weights(tmp_path / "w.th"))


def test_another_pickle_protocol_is_an_error_and_not_a_warning_beside_it(tmp_path):
    torch.save(PLAIN, tmp_path / "w.pt", pickle_protocol=4)  # torch reads none but its own safely
    assert "not written by torch.save as it is" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": PLAIN}, "state_dict"),
        ({"model": PLAIN}, "model"),
        ({"net": PLAIN, "acc": 0.5, "epoch": 3}, "net"),
        ({"epoch": torch.tensor(3), "optimizer": {"m": torch.ones(9)}, "ema": PLAIN}, "ema"),
        ({"epoch": 3, "model": {"state_dict": PLAIN, "name": "x"}}, "model.state_dict"),
    ],
)
def test_weights_are_found_under_their_wrapper(tmp_path, content, key):
    torch.save(content, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert same(weights)
    assert weights.key == key


def test_one_wrapped_tensor_wins_over_a_counter_beside_it(tmp_path):
    torch.save({"step": torch.tensor(3), "state_dict": {"w": torch.ones(2)}}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt").tensors) == ["w"]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model."]
)
def test_prefixes_are_taken_off_and_put_back(tmp_path, prefix):
    torch.save(prefixed(prefix), tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert same(weights)
    assert weights.prefix == prefix
    assert list(weights.named_as(PLAIN)) == list(PLAIN)
    last = prefix.split(".")[-2] + "."
    assert list(weights.named_as(prefixed(last))) == list(prefixed(last))


def test_a_prefix_that_not_all_names_share_stays(tmp_path):
    torch.save({"model.w": torch.ones(1), "head.w": torch.ones(1)}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert list(weights.tensors) == ["model.w", "head.w"]
    assert weights.prefix == ""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_is_refused_by_name_and_not_executed(tmp_path, zipped):
    mark = tmp_path / "executed"
    content = {"state_dict": PLAIN, "extra": Evil(mark)}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "evil.pt")
    assert f"{os.system.__module__}.system" in text
    assert "could run code" in text
    assert "weights_only" not in text  # torch's advice to load it all the same
    assert not mark.exists()


def test_a_bare_pickle_with_code_is_not_executed(tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Evil(mark)))
    assert "weights_only" not in refusal(tmp_path / "evil.ckpt")
    assert not mark.exists()


def test_a_pickled_module_is_refused_by_its_class(tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "module.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files(tmp_path, suffix, damage):
    path = tmp_path / f"w{suffix}"
    big = {"w": torch.ones(1000)}
    save_file(big, path) if suffix == ".safetensors" else torch.save(big, path)
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"epoch 1\nloss 2\n"}
    path.write_bytes(content[damage])
    assert "cannot be read" in refusal(path)


def test_a_truncated_file_of_the_old_format(tmp_path):
    torch.save(PLAIN, tmp_path / "w.th", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.th").read_bytes()
    (tmp_path / "w.th").write_bytes(whole[: len(whole) // 2])
    assert "weights_only" not in refusal(tmp_path / "w.th")


def test_no_file_and_a_folder(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.pt")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, [torch.ones(2)], {}])
def test_files_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    assert "no tensors by name" in refusal(tmp_path / "w.pt")


@pytest.mark.filterwarnings("error")
def test_keys_that_are_no_names_are_named_by_their_type(tmp_path):
    torch.save({torch.ones(2): 1, "epoch": 3, 7: 2}, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "no tensors by name (found '<Tensor>', 'epoch', '7')" in said


def test_a_file_that_holds_itself(tmp_path):
    knot = {}
    knot["model"] = knot
    torch.save(knot, tmp_path / "w.pt")
    assert "no tensors by name" in refusal(tmp_path / "w.pt")


def test_the_fingerprint_is_of_names_shapes_and_bits(tmp_path):
    def mark(tensors):
        return Weights(tmp_path, tensors).fingerprint

    first = mark(PLAIN)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert mark(dict(reversed(PLAIN.items()))) == first
    assert mark({k: v.clone().requires_grad_() for k, v in PLAIN.items()}) == first
    bit = PLAIN["conv.bias"].clone()
    bit.view(torch.int32)[0] ^= 1
    assert mark(PLAIN | {"conv.bias": bit}) != first
    assert mark(PLAIN | {"conv.weight": PLAIN["conv.weight"].reshape(3, 2)}) != first
    assert mark({name.upper(): tensor for name, tensor in PLAIN.items()}) != first
    kinds = (torch.tensor(3), torch.empty(0), torch.ones(2).bool(), torch.ones(2).bfloat16())
    assert len({mark({"w": tensor}) for tensor in kinds}) == 4


BOTH = {"model": {"w": torch.zeros(3)}, "ema": {"module.w": torch.ones(3)}, "epoch": 7}


@pytest.mark.parametrize(
    ("key", "value", "others"),
    [(None, 0.0, ("ema",)), ("ema", 1.0, ("model",)), ("model", 0.0, ("ema",))],
)
def test_the_user_chooses_among_several_entries(tmp_path, key, value, others):
    torch.save(BOTH, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt", key=key)
    assert torch.equal(weights.tensors["w"], torch.full((3,), value))
    assert weights.key == (key or "model")
    assert weights.others == others


def test_an_entry_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    torch.save(BOTH, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="no weights under 'net': expected 'model', 'ema'"):
        read_weights(tmp_path / "w.pt", key="net")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"generator": PLAIN, "epoch": 3}, "generator"),
        ({"mean": torch.zeros(3), "weights": PLAIN}, "weights"),
        ({"mean": torch.zeros(9), "extra": {"t": torch.zeros(1)}, **PLAIN}, ""),
        ({"models": [{"a": 1}, PLAIN]}, "models.1"),
        ({"checkpoint": {"best": {"net": PLAIN}}}, "checkpoint.best.net"),
        ({"a.b": {"c": PLAIN}, "optimizer": {"state": {0: {"m": torch.ones(99)}}}}, "a.b.c"),
        ({"model": {"model": {"model": PLAIN}}}, "model.model.model"),
    ],
)
def test_weights_are_found_under_names_that_nobody_foresaw(tmp_path, content, key):
    torch.save(content, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").key == key
    if key:
        assert same(read_weights(tmp_path / "w.pt", key=key))


def test_two_networks_of_one_file_are_not_guessed_between(tmp_path):
    content = {"netG": PLAIN, "netD": {"w": torch.ones(2)}, "epoch": 3}
    torch.save(content, tmp_path / "w.pt")
    assert "may mean 'netG', 'netD': choose one with --key" in refusal(tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt", key="netD").tensors) == ["w"]


def test_a_lightning_checkpoint(tmp_path):
    content = {
        "state_dict": prefixed("model."), "pytorch-lightning_version": "2.5", "epoch": 3,
        "hyper_parameters": {"lr": 0.1, "w": torch.ones(1)}, "optimizer_states": [{"state": {}}],
    }  # fmt: skip
    torch.save(content, tmp_path / "w.ckpt")
    weights = read_weights(tmp_path / "w.ckpt")
    assert same(weights)
    assert (weights.key, weights.prefix, weights.others) == ("state_dict", "model.", ())


def test_values_that_are_no_tensors_are_left_out_and_told(tmp_path):
    torch.save({"state_dict": {**PLAIN, "_extra": {"x": 1}, "step": 4}}, tmp_path / "w.pt")
    weights = read_weights(tmp_path / "w.pt")
    assert same(weights)
    assert weights.ignored == ("_extra", "step")


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (torch.ones(2, 2).to_sparse(), "is sparse_coo"),
        (torch.ones(2, device="meta"), "on the meta device"),
        (torch.zeros(4, dtype=torch.uint8).view(torch.bits8), "torch.bits8"),
    ],
)
def test_tensors_that_no_measure_is_defined_on(tmp_path, tensor, word):
    torch.save({"a": torch.ones(1), "w": tensor}, tmp_path / "w.pt")
    text = refusal(tmp_path / "w.pt")
    assert ": w is " in text
    assert word in text


def test_quantized_tensors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(
            {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, tmp_path / "w.pt"
        )
    assert "w is quantized" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.half,
        torch.float8_e5m2,
        torch.int8,
        torch.uint16,
        torch.bool,
        torch.complex64,
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_dtypes_are_kept(tmp_path, dtype, suffix):
    tensors = {"w": torch.tensor([0.0, 1.0, 1.0]).to(dtype)}
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    found = read_weights(path).tensors["w"]
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), tensors["w"].view(torch.uint8))


def test_tied_weights_stay_tied(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    torch.save({"wte": table, "head": table}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt").tensors
    assert found["wte"].data_ptr() == found["head"].data_ptr()


def test_parameters_come_without_gradients_and_without_what_hung_on_them(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.numel = 5
    torch.save({"w": parameter}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt").tensors["w"]
    assert not found.requires_grad
    assert found.numel() == 2


def test_reading_maps_the_file_and_changes_nothing_in_it(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pt")
    before = (tmp_path / "w.pt").read_bytes()
    read_weights(tmp_path / "w.pt").tensors["w"].fill_(1.0)
    assert (tmp_path / "w.pt").read_bytes() == before
    assert torch.equal(read_weights(tmp_path / "w.pt").tensors["w"], torch.zeros(1000))


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_shards_are_put_together(tmp_path, suffix):
    halves = [{"conv.weight": PLAIN["conv.weight"]}, {"conv.bias": PLAIN["conv.bias"]}]
    index = {}
    for i, half in enumerate(halves):
        name = f"model-{i + 1}-of-2{suffix}"
        save_file(half, tmp_path / name) if suffix == ".safetensors" else torch.save(
            half, tmp_path / name
        )
        index |= dict.fromkeys(half, name)
    path = tmp_path / f"model{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    weights = read_weights(path)
    assert same(weights)
    whole = Weights(path, PLAIN)
    assert weights.fingerprint == whole.fingerprint
    path.write_text(json.dumps({"weight_map": index | {"more": name}}))
    assert f"{name} lacks more" in refusal(path)
    path.write_text(json.dumps({"weight_map": index | {"more": "../secret.bin"}}))
    assert "expected files of its own folder" in refusal(path)
    (tmp_path / name).unlink()
    path.write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        read_weights(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_damaged_indices(tmp_path, content):
    (tmp_path / "model.bin.index.json").write_text(content)
    assert "expected JSON with a weight_map" in refusal(tmp_path / "model.bin.index.json")


def test_files_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    assert "is no regular file" in refusal(tmp_path / "w.pt")
