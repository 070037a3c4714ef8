"""``--model`` -> the network, with the checkpoint's weights in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape import networks_cifar
from landscape.calls import Call, parse
from landscape.checkpoint import Weights
from landscape.loading import fill
from landscape.resolve import resolve, said

FORMS = "package.module:factory, file.py:factory, cifar:resnet20, torchvision:NAME, timm:NAME or hf:FOLDER"
_HF_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Network:
    """A network and what is worth recording about how it was made.

    Attributes:
        module: with the weights of the checkpoint.
        settings: what was guessed or chosen, by name.
    """

    module: nn.Module
    settings: dict[str, Any] = field(default_factory=dict)


def network(name: str, weights: Weights) -> Network:
    """The network of ``--model`` with these weights in it. The global random state stays as it is.

    Args:
        name: ``package.module:factory`` or ``file.py:factory``, with literal arguments in parentheses
            where it takes any; ``cifar:resnet20`` and the like; ``torchvision:NAME`` or ``timm:NAME``,
            whose number of classes is read off the checkpoint unless it is among the arguments;
            ``hf:FOLDER`` with a ``config.json``, or the name of a model that is in the user's cache.
        weights: of the checkpoint.

    Raises:
        ValueError: the name, its package or its arguments are wrong, or the weights do not fit.
    """
    place, colon, rest = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        if colon and place in _MAKERS:
            made = _MAKERS[place](rest, weights)
        else:
            made = Network(_module(called(name, "--model"), name))
    fill(made.module, weights)
    return made


def called(name: str, what: str) -> Any:
    """What the function of a name returns for the arguments beside it.

    Args:
        name: ``file.py:factory``, ``package.module:factory``, or either with arguments.
        what: what it is for, such as ``"--model"``: named in errors.

    Raises:
        ValueError: there is no such function, or it fails.
    """
    call = parse(name, what)
    factory = resolve(call.name, what)
    if not callable(factory):
        raise ValueError(
            f"{what} {name!r} is a {type(factory).__name__}, expected a function to call"
        )
    return _tried(lambda: factory(*call.args, **call.kwargs), name, what)


def hf_checkpoint(folder: Path) -> Path | None:
    """The weights file in a folder that Hugging Face's ``save_pretrained`` wrote; ``None`` for others.

    Raises:
        ValueError: its weights are missing, or in several files.
    """
    if not (folder / "config.json").is_file() or (folder / "meta.json").is_file():
        return None
    for name in _HF_FILES:
        if (folder / name).is_file():
            return folder / name
    if any((folder / f"{name}.index.json").is_file() for name in _HF_FILES):
        raise ValueError(
            f"{folder} holds its weights in several files: save it again as one, with "
            "save_pretrained(folder, max_shard_size='1TB')"
        )
    raise ValueError(
        f"{folder} has a config.json but no weights: expected {' or '.join(_HF_FILES)}"
    )


def _tried(make: Callable[[], Any], name: str, what: str = "--model") -> Any:
    try:
        return make()
    except Exception as error:  # code of the user or of a library runs here, and may raise anything
        raise ValueError(f"{what} {name!r} failed: {said(error)}") from error


def _module(made: Any, name: str) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"--model {name!r} made a {type(made).__name__}, expected a torch.nn.Module"
        )
    return made


def _cifar(rest: str, weights: Weights) -> Network:
    return Network(networks_cifar.named(rest, weights.tensors))


def _torchvision(rest: str, weights: Weights) -> Network:
    models = _extra("torchvision", "torchvision.models")
    fetched = ("weights", "weights_backbone")
    return _of_library("torchvision", rest, weights, models.get_model, {"weights": None}, fetched)


def _timm(rest: str, weights: Weights) -> Network:
    timm = _extra("timm", "timm")
    fetched = ("pretrained", "checkpoint_path")
    return _of_library("timm", rest, weights, timm.create_model, {"pretrained": False}, fetched)


def _of_library(
    package: str,
    rest: str,
    weights: Weights,
    create: Callable[..., Any],
    untrained: Mapping[str, Any],
    fetched: tuple[str, ...],
) -> Network:
    """A model of a library by name, without the weights that the library itself would fetch."""
    call = _by_name(rest, package, fetched)
    name = f"{package}:{rest}"

    def make(**options: Any) -> nn.Module:
        settings = {**untrained, **call.kwargs, **options}
        return _module(_tried(lambda: create(call.name, *call.args, **settings), name), name)

    return _with_classes(make, call, weights)


def _by_name(rest: str, package: str, refused: tuple[str, ...]) -> Call:
    """A name in a library of models; one that would fetch anything is refused."""
    call = parse(rest, "--model")
    if ":" in call.name or "/" in call.name:
        raise ValueError(
            f"--model {package}:{rest} is not a name of {package} itself: nothing is fetched, "
            f"expected a name such as {package}:resnet18"
        )
    taken = [name for name in refused if name in call.kwargs]
    if taken:
        raise ValueError(
            f"--model {package}:{rest} sets {taken[0]}: leave it out, the weights are the checkpoint's"
        )
    return call


def _with_classes(make: Callable[..., nn.Module], call: Call, weights: Weights) -> Network:
    """The network with as many classes as the checkpoint's head has outputs."""
    module = make()
    if "num_classes" in call.kwargs:
        return Network(module)
    classes = _other_classes(module.state_dict(), weights)
    return (
        Network(module)
        if classes is None
        else Network(make(num_classes=classes), {"num_classes_guessed": classes})
    )


def _other_classes(wanted: Mapping[str, Tensor], weights: Weights) -> int | None:
    """Outputs of the checkpoint's last weight, where they alone differ from the model's."""
    tensors = weights.named_as(wanted)
    matrices = [name for name, tensor in wanted.items() if tensor.dim() > 1 and name in tensors]
    if not matrices:
        return None
    have, want = tensors[matrices[-1]].shape, wanted[matrices[-1]].shape
    return have[0] if have[1:] == want[1:] and have[0] != want[0] else None


def _hugging_face(rest: str, weights: Weights) -> Network:
    transformers = _extra("transformers", "transformers", "hf")
    place = Path(rest)
    if place.is_dir() and not (place / "config.json").is_file():
        raise ValueError(f"--model hf:{rest} has no config.json: expected a folder with one")
    name = f"hf:{rest}"
    config = _tried(
        lambda: transformers.AutoConfig.from_pretrained(
            rest, local_files_only=True, trust_remote_code=False
        ),
        name,
    )
    kinds = list(getattr(config, "architectures", None) or [])
    kind = getattr(transformers, kinds[0], None) if kinds else None
    if kind is None:
        raise ValueError(
            f"--model {name} asks for {kinds[0] if kinds else 'no architecture'}, which is not a class "
            "of transformers: code of a model's own is never run; name a factory with "
            "--model file.py:factory"
        )
    config.use_cache = False  # keys and values of the past are no output that a loss reads
    return Network(_module(_tried(lambda: kind(config), name), name), {"architecture": kinds[0]})


def _extra(package: str, module: str, extra: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--model {extra or package}: needs {package}, which is not usable here ({said(error)}): "
            f"pip install 'sharp-landscape[{extra or package}]'"
        ) from None


_MAKERS: dict[str, Callable[[str, Weights], Network]] = {
    "cifar": _cifar,
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _hugging_face,
}
