"""Small models as people have them, saved as people save them; this file is a ``--model`` file too.

Each entry of :data:`WILD` writes a checkpoint and its data into a folder, and tells the loss that belongs
to them, computed without this package.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from problems import normal, seeded
from safetensors.torch import save_file
from torch import Tensor, nn


class Basic(nn.Module):
    """Two convolutions with batch norm, and a shortcut with one where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(hidden + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1, self.layer2 = Basic(4, 4, 1), Basic(4, 6, 2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool2d(hidden, 1).flatten(1))


class Transformer(nn.Module):
    """An encoder over vectors, of the first position's class."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x))[:, 0])


class GPTBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.attn(self.ln_1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


@dataclass
class Output:
    """What Hugging Face's language models return."""

    logits: Tensor


class GPT(nn.Module):
    """GPT-2 in small: learned positions, causal attention, the embedding is the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.h = nn.ModuleList([GPTBlock(8), GPTBlock(8)])
        self.ln_f = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Output:
        hidden = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            hidden = block(hidden)
        return Output(self.lm_head(self.ln_f(hidden)))


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.fc = nn.Linear(5, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embed(tokens))[0][:, -1])


def resnet() -> nn.Module:
    return ResNet()


def transformer(width: int = 4, layers: int = 1) -> nn.Module:
    return Transformer(width, layers)


def mlp(*widths: int, dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def gpt() -> nn.Module:
    return GPT()


def lstm() -> nn.Module:
    return LSTM()


@dataclass(frozen=True)
class Wild:
    """A checkpoint with its data, and what they must give.

    Attributes:
        checkpoint: the file.
        model: ``--model``.
        data: ``--data``.
        loss: ``--loss``.
        parameters: how many, a tied one counted once.
        value: the mean loss in float64, by plain torch.
        gradient_norm: of that loss.
    """

    checkpoint: Path
    model: str
    data: Path
    loss: str
    parameters: int
    value: float
    gradient_norm: float

    @property
    def words(self) -> tuple[str, ...]:
        """For the command line."""
        return (
            str(self.checkpoint), "--model", self.model, "--data", str(self.data), "--loss", self.loss,
        )  # fmt: skip


def _known(module: nn.Module) -> nn.Module:
    """Batch-norm statistics and biases that are not the initial ones, in eval mode."""
    with torch.no_grad():
        for i, (name, tensor) in enumerate(module.state_dict().items()):
            if name.endswith("running_mean") or (tensor.dim() == 1 and "bias" in name):
                tensor.add_(0.1 * normal(*tensor.shape, seed=i))
            elif name.endswith("running_var"):
                tensor.mul_(
                    0.5 + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(i))
                )
    return module.eval()


def _wild(
    module: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    checkpoint: Path,
    model: str,
    data: Path,
    loss: str = "cross_entropy",
) -> Wild:
    double = module.double()
    value = loss_of(double)
    grads = torch.autograd.grad(value, list(double.parameters()))
    return Wild(
        checkpoint,
        f"{__file__}:{model}",
        data,
        loss,
        sum(p.numel() for p in double.parameters()),
        float(value.detach()),
        math.sqrt(sum(float(g.square().sum()) for g in grads)),
    )


def _integers(high: int, *shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def wild_resnet(folder: Path) -> Wild:
    """Saved under DataParallel by a training script, from before counts of batches were kept."""
    module = _known(seeded(resnet))
    state = {f"module.{k}": v for k, v in module.state_dict().items() if "num_batches" not in k}
    torch.save({"state_dict": state, "epoch": 3, "best_prec1": 91.7}, folder / "model_best.pth.tar")
    images, labels = _integers(256, 10, 8, 8, 3, seed=1).astype(np.uint8), _integers(3, 10, seed=2)
    np.savez(folder / "images.npz", images=images, labels=labels.astype(np.uint8))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    return _wild(
        module, lambda m: F.cross_entropy(m(x), torch.from_numpy(labels)),
        folder / "model_best.pth.tar", "resnet", folder / "images.npz",
    )  # fmt: skip


def wild_transformer(folder: Path) -> Wild:
    """Saved by Lightning, whose module calls the network ``model``."""
    module = _known(seeded(lambda: transformer(6, layers=2)))
    state = {f"model.{k}": v for k, v in module.state_dict().items()}
    torch.save(
        {"state_dict": state, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {}},
        folder / "transformer.ckpt",
    )
    x, y = normal(7, 4, 3, seed=3).float(), torch.from_numpy(_integers(3, 7, seed=4))
    torch.save({"x": x, "y": y}, folder / "vectors.pt")
    return _wild(
        module, lambda m: F.cross_entropy(m(x.double()), y),
        folder / "transformer.ckpt", "transformer(6, layers=2)", folder / "vectors.pt",
    )  # fmt: skip


def wild_mlp(folder: Path) -> Wild:
    """Compiled when it was saved, beside the state of its optimizer."""
    module = seeded(lambda: mlp(5, 8, 4, dropout=0.5)).eval()
    state = {f"_orig_mod.{k}": v for k, v in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9).state_dict()
    torch.save({"model": state, "optimizer": optimizer, "step": 10}, folder / "mlp.pt")
    x, y = normal(9, 5, seed=5), torch.from_numpy(_integers(4, 9, seed=6))
    np.savez(folder / "vectors.npz", x=x.numpy(), y=y.numpy())
    return _wild(
        module, lambda m: F.cross_entropy(m(x), y),
        folder / "mlp.pt", "mlp(5, 8, 4, dropout=0.5)", folder / "vectors.npz",
    )  # fmt: skip


def wild_gpt(folder: Path) -> Wild:
    """One tensor for embedding and head in the file, as Hugging Face saves it; padded labels."""
    module = _known(seeded(gpt))
    state = {k: v.contiguous() for k, v in module.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "gpt.safetensors")
    tokens = torch.from_numpy(_integers(11, 5, 6, seed=7))
    labels = tokens.clone()
    labels[0, 4:], labels[3, 2:] = -100, -100
    np.savez(folder / "tokens.npz", input_ids=tokens.numpy(), labels=labels.numpy())

    def loss_of(m: nn.Module) -> Tensor:
        examples = []
        for sequence, label in zip(tokens, labels, strict=True):
            logs = m(sequence[None]).logits[0].log_softmax(-1)
            examples.append(
                torch.stack(
                    [-logs[t, label[t + 1]] for t in range(5) if label[t + 1] != -100]
                ).mean()
            )
        return torch.stack(examples).mean()

    return _wild(
        module, loss_of, folder / "gpt.safetensors", "gpt", folder / "tokens.npz", "next_token"
    )


def wild_lstm(folder: Path) -> Wild:
    """A bare state dict, with a zip-free file of old torch."""
    module = seeded(lstm).eval()
    torch.save(module.state_dict(), folder / "lstm.t7", _use_new_zipfile_serialization=False)
    x, y = torch.from_numpy(_integers(9, 8, 5, seed=8)), torch.from_numpy(_integers(2, 8, seed=9))
    save_file({"x": x, "y": y}, folder / "sequences.safetensors")
    return _wild(
        module, lambda m: F.cross_entropy(m(x), y),
        folder / "lstm.t7", "lstm", folder / "sequences.safetensors",
    )  # fmt: skip


WILD: dict[str, Callable[[Path], Wild]] = {
    "resnet": wild_resnet,
    "transformer": wild_transformer,
    "mlp": wild_mlp,
    "gpt": wild_gpt,
    "lstm": wild_lstm,
}
