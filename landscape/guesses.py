"""What names and shapes of weights suggest about the network: guesses, to be worded as such."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from landscape.checkpoint import Weights
from landscape.state_dicts import entries

_BASIC: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_VGG = {8: 11, 10: 13, 13: 16, 16: 19}
_GATES = {4: "LSTM", 3: "GRU", 1: "recurrent network"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Guess:
    """One thing that the names and shapes suggest.

    Attributes:
        about: ``architecture``, ``origin``, ``classes``, ``input channels``, ``batch norm`` or ``part``.
        text: the guess in words.
    """

    about: str
    text: str


def guess(weights: Weights, content: Any = None) -> tuple[Guess, ...]:
    """Guesses from the weights and from what lies beside them.

    >>> import torch
    >>> from pathlib import Path
    >>> layers = {"0.weight": torch.ones(5, 3), "0.bias": torch.ones(5), "2.weight": torch.ones(2, 5)}
    >>> [found.text for found in guess(Weights(Path("a.pt"), layers))][:2]
    ['multilayer perceptron 3-5-2', '2, or as many outputs: rows of 2.weight']
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    found = []
    family = architecture(shapes)
    if family:
        found.append(Guess("architecture", family))
    found += _ends(weights.tensors, shapes)
    origin = _origin(weights, content)
    if origin:
        found.append(Guess("origin", origin))
    part = re.search(r"-(\d{1,6})-of-(\d{1,6})\.", weights.path.name)
    if part and int(part[2]) > 1:
        found.append(
            Guess("part", f"{int(part[1])} of {int(part[2])}: name the .index.json for all")
        )
    return tuple(found)


def architecture(shapes: Shapes) -> str:
    """The family of networks that has such names and shapes; empty when none is known.

    >>> architecture({"lstm.weight_ih_l0": (32, 5), "lstm.weight_hh_l0": (32, 8)})
    'LSTM of 1 layer, hidden size 8, input size 5'
    """
    for known in (_resnet, _vgg, _gpt2, _bert, _vit, _llama, _encoder, _recurrent, _chain):
        found = known(shapes)
        if found:
            return found
    return ""


def _resnet(shapes: Shapes) -> str:
    blocks: dict[int, set[str]] = {}
    for name in shapes:
        found = re.match(r"(?:.*\.)?layer(\d{1,3})\.(\d{1,4})\.conv1\.weight$", name)
        if found:
            blocks.setdefault(int(found[1]), set()).add(found[2])
    if len(blocks) < 3:
        return ""
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    deep = any(re.search(r"layer\d+\.\d+\.conv3\.weight$", name) for name in shapes)
    first = next((s for n, s in shapes.items() if n.endswith("conv1.weight") and len(s) == 4), None)
    large = first is not None and first[2] == 7
    convs = (3 if deep else 2) * sum(counts) + 2
    depth = (_BOTTLENECK if deep else _BASIC).get(counts, convs)
    width = f", {first[0]} channels wide at first" if first else ""
    kind = "of the ImageNet kind (7x7 first)" if large else "of the CIFAR kind (3x3 first)"
    if len(counts) == 3:
        kind = "of the CIFAR kind (three stages)"
    return f"ResNet-{depth} {kind}, blocks {'-'.join(map(str, counts))}{width}"


def _vgg(shapes: Shapes) -> str:
    convs = [
        s for n, s in shapes.items() if re.search(r"features\.\d+\.weight$", n) and len(s) == 4
    ]
    if len(convs) in _VGG and all(s[2:] == (3, 3) for s in convs):
        return f"VGG-{_VGG[len(convs)]}"
    return ""


def _gpt2(shapes: Shapes) -> str:
    layers = _count(shapes, r"(?:.*\.)?h\.(\d+)\.attn\.c_attn\.weight$")
    table = _shape(shapes, "wte.weight")
    if not layers or table is None:
        return ""
    places = _shape(shapes, "wpe.weight")
    context = f", context {places[0]}" if places else ""
    return f"GPT-2 of {_layers(layers)}, width {table[1]}, vocabulary {table[0]}{context}"


def _bert(shapes: Shapes) -> str:
    layers = _count(
        shapes, r"(?:.*\.)?encoder\.layer\.(\d+)\.attention\.(?:self|attention)\.query\.weight$"
    )
    table = _shape(shapes, "embeddings.word_embeddings.weight")
    if not layers or table is None:
        return ""
    return f"BERT of {_layers(layers)}, width {table[1]}, vocabulary {table[0]}"


def _vit(shapes: Shapes) -> str:
    layers = max(
        _count(shapes, r"(?:.*\.)?blocks\.(\d+)\.attn\.qkv\.weight$"),
        _count(shapes, r"(?:.*\.)?encoder_layer_(\d+)\.self_attention\.in_proj_weight$"),
        _count(shapes, r"(?:.*\.)?encoder\.layer\.(\d+)\.attention\.attention\.query\.weight$"),
    )
    for end in (
        "patch_embed.proj.weight",
        "conv_proj.weight",
        "patch_embeddings.projection.weight",
    ):
        patch = _shape(shapes, end)
        if layers and patch is not None and len(patch) == 4:
            return f"vision transformer of {_layers(layers)}, width {patch[0]}, patches {patch[2]}x{patch[3]}"
    return ""


def _llama(shapes: Shapes) -> str:
    layers = _count(shapes, r"(?:.*\.)?layers\.(\d+)\.self_attn\.q_proj\.weight$")
    table = _shape(shapes, "embed_tokens.weight")
    if not layers or table is None:
        return ""
    return f"Llama-style transformer of {_layers(layers)}, width {table[1]}, vocabulary {table[0]}"


def _encoder(shapes: Shapes) -> str:
    layers = _count(shapes, r"(?:.*\.)?layers\.(\d+)\.self_attn\.in_proj_weight$")
    widths = [s[1] for n, s in shapes.items() if n.endswith("self_attn.in_proj_weight")]
    return f"torch.nn transformer of {_layers(layers)}, width {widths[0]}" if layers else ""


def _recurrent(shapes: Shapes) -> str:
    inner = [(n, s) for n, s in shapes.items() if re.search(r"weight_hh_l\d+(_reverse)?$", n)]
    if not inner or len(inner[0][1]) != 2 or not inner[0][1][1]:
        return ""
    name, (rows, hidden) = inner[0][0], inner[0][1]
    kind = _GATES.get(rows // hidden, "recurrent network")
    layers = len({re.sub(r"_reverse$", "", n) for n, _ in inner})
    both = "bidirectional " if any(n.endswith("_reverse") for n, _ in inner) else ""
    outer = shapes.get(name.replace("weight_hh", "weight_ih"))
    size = f", input size {outer[1]}" if outer is not None and len(outer) == 2 else ""
    return f"{both}{kind} of {_layers(layers)}, hidden size {hidden}{size}"


def _chain(shapes: Shapes) -> str:
    """A perceptron when every matrix takes what the one before gives; else a count of layers."""
    matrices = [s for s in shapes.values() if len(s) == 2]
    convs = [s for s in shapes.values() if len(s) == 4]
    if convs:
        return f"convolutional network of {len(convs)} convolutions and {len(matrices)} matrices"
    chained = all(a[0] == b[1] for a, b in pairwise(matrices))
    if matrices and chained and all(len(s) <= 2 for s in shapes.values()):
        sizes = [matrices[0][1], *(s[0] for s in matrices)]
        shown = (
            [str(n) for n in sizes]
            if len(sizes) < 12
            else [*map(str, sizes[:5]), "…", str(sizes[-1])]
        )
        return f"multilayer perceptron {'-'.join(shown)}"
    return ""


def _ends(tensors: Mapping[str, Tensor], shapes: Shapes) -> list[Guess]:
    """What goes in and comes out."""
    found = []
    matrices = [name for name, shape in shapes.items() if len(shape) == 2 and "weight" in name]
    if matrices:
        last = matrices[-1]
        shared = [n for n in matrices[:-1] if tensors[n].data_ptr() == tensors[last].data_ptr()]
        rows = shapes[last][0]
        tied = f" (tied to {shared[0]}: a vocabulary)" if shared and tensors[last].numel() else ""
        found.append(Guess("classes", f"{rows}, or as many outputs: rows of {last}{tied}"))
    first = next((s for s in shapes.values() if len(s) == 4), None)
    if first is not None:
        found.append(Guess("input channels", f"{first[1]}"))
    norms = sum(name.endswith("running_mean") for name in shapes)
    found.append(Guess("batch norm", f"{norms} layers" if norms else "none with statistics"))
    return found


def _origin(weights: Weights, content: Any) -> str:
    keys = {name for name, _ in entries(content)} if isinstance(content, Mapping) else set()
    if "pytorch-lightning_version" in keys:
        return "PyTorch Lightning"
    if "arch" in keys and ("state_dict_ema" in keys or "amp_scaler" in keys):
        return "timm"
    if weights.path.name.startswith(("pytorch_model", "model.safetensors", "model-0")):
        return "Hugging Face"
    if {"conv1.weight", "fc.weight", "layer4.0.downsample.0.weight"} <= weights.tensors.keys():
        return "torchvision, or timm"
    return ""


def _count(shapes: Shapes, pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def _shape(shapes: Shapes, end: str) -> tuple[int, ...] | None:
    """Shape of the matrix (or kernel) whose name ends so."""
    for name, shape in shapes.items():
        if (name == end or name.endswith(f".{end}")) and len(shape) >= 2:
            return shape
    return None


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def suggested_flags(weights: Weights, content: Any = None) -> tuple[str, ...]:
    """``--model``, ``--data`` and perhaps ``--loss`` for the commands that need them: a guess to edit.

    >>> from pathlib import Path
    >>> suggested_flags(Weights(Path("a.pt"), {}))
    ('--model', 'file.py:factory', '--data', 'data.npz')
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    family = architecture(shapes)
    model, data = "file.py:factory", "data.npz"
    loss: tuple[str, ...] = ()
    held = dict(entries(content)) if isinstance(content, Mapping) else {}
    size = re.match(r"ResNet-(\d+)", family)
    arch = held.get("arch")
    if (
        _origin(weights, content) == "timm"
        and isinstance(arch, str)
        and re.fullmatch(r"[\w.]+", arch)
    ):
        model = f"timm:{arch}"
    elif size and "three stages" in family:
        plain = "-noshort" if "noshort" in weights.path.name else ""
        model, data = f"cifar:resnet{size[1]}{plain}", "cifar10"
    elif size and "ImageNet" in family:
        model = f"torchvision:resnet{size[1]}"
    elif family.startswith("VGG"):
        norm = "_bn" if any(name.endswith("running_mean") for name in shapes) else ""
        model = f"torchvision:vgg{family.removeprefix('VGG-')}{norm}"
    elif (weights.path.parent / "config.json").is_file():
        model = f"hf:{weights.path.parent}"
    if family.startswith(("GPT-2", "Llama")):
        data, loss = "tokens.npz", ("--loss", "next_token")
    return ("--model", model, "--data", data, *loss)
