"""The ResNets for CIFAR that most published checkpoints of this field hold; torch only."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

FORM = re.compile(r"resnet(\d+)(-noshort)?")
EXPECTED = "resnet20, resnet32, resnet56, ... (6n + 2 layers), or the same with -noshort"
_DEEPEST = 1202  # of the paper


class Block(nn.Module):
    """The basic block: two 3x3 convolutions with batch norm, and what is added to their result.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution; above 1 the shortcut has to change its shape too.
        convolve: it does so by a strided 1x1 convolution with batch norm (option B of the paper),
            else by every second pixel and zeros for the new channels, half on each side (option A).
        shortcuts: whether anything is added at all.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, convolve: bool, shortcuts: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        self.shortcuts = shortcuts
        self.padding = 0
        if shortcuts and stride != 1 and convolve:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        elif shortcuts and stride != 1:
            self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` -> ``(batch, outputs, height / stride, width / stride)``."""
        hidden = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if not self.shortcuts:
            return F.relu(hidden)
        if self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(hidden + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet of ``6 * blocks + 2`` layers (He et al. 2016, sec. 4.2).

    Names of tensors are those of the published checkpoints: ``conv1``, ``bn1``, ``layer1`` to ``layer3``,
    ``linear``.

    Args:
        blocks: in each of the three stages of 16, 32 and 64 channels.
        convolve: how shortcuts change their shape, see :class:`Block`.
        shortcuts: off in the networks without skip connections of Li et al. 2018.
        classes: outputs.
    """

    def __init__(
        self, blocks: int, convolve: bool, shortcuts: bool = True, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            stride = outputs // inputs  # a stage that doubles the channels halves the size
            first = Block(inputs, outputs, stride, convolve, shortcuts)
            rest = [Block(outputs, outputs, 1, convolve, shortcuts) for _ in range(blocks - 1)]
            return nn.Sequential(first, *rest)

        self.layer1, self.layer2, self.layer3 = stage(16, 16), stage(16, 32), stage(32, 64)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, 3, 32, 32)`` -> logits ``(batch, classes)``."""
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.linear(F.avg_pool2d(hidden, 8).flatten(1))
        return logits


def named(name: str, tensors: Mapping[str, Tensor]) -> ResNet:
    """The ResNet of a name, with what only its weights tell: classes, and the kind of shortcut.

    Args:
        name: such as ``"resnet20"`` or ``"resnet56-noshort"``.
        tensors: the checkpoint's, by name.

    Raises:
        ValueError: no such network.

    >>> sum(p.numel() for p in named("resnet20", {}).parameters())  # He et al. 2016, table 6: 0.27 M
    269722
    """
    match = FORM.fullmatch(name)
    depth = int(match[1]) if match else 0
    if match is None or depth % 6 != 2 or not 8 <= depth <= _DEEPEST:
        raise ValueError(
            f"--model cifar:{name} is unknown: expected cifar: and one of {EXPECTED}; "
            "for a function in a file of yours write file.py:function"
        )
    head = tensors.get("linear.weight")
    return ResNet(
        (depth - 2) // 6,
        convolve=any(".shortcut." in key for key in tensors),
        shortcuts=match[2] is None,
        classes=10 if head is None else len(head),
    )
