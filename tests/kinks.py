"""How far a network is from the kinks of its layers: whether second derivatives exist at a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ZERO = ("relu", "relu_", "leaky_relu", "leaky_relu_", "_prelu_kernel", "prelu", "elu", "elu_")
PLACES: dict[str, tuple[float, ...]] = {"hardswish": (-3.0, 3.0), "hardswish_": (-3.0, 3.0)}


class Watch(TorchDispatchMode):
    """Notes the distance of every input of a kinked operation to its kink, and on which side it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = float("inf")
        self.sides: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name in ZERO:
            self._note(args[0], (0.0,))
        elif name in PLACES:
            self._note(args[0], PLACES[name])
        elif name in ("hardtanh", "hardtanh_"):
            self._note(args[0], (0.0, 6.0))  # ReLU6
        elif name == "max_pool2d_with_indices":
            self._windows(*args)
        elif name == "adaptive_max_pool2d":
            self._adaptive(args[0], args[1])
        result = function(*args, **(kwargs or {}))
        if "max_pool" in name and isinstance(result, tuple):
            self.sides.append(result[1].clone())
        return result

    def _note(self, x: Tensor, places: tuple[float, ...]) -> None:
        for place in places:
            if x.numel():
                self.distance = min(self.distance, float((x - place).abs().min()))
            self.sides.append(x > place)

    def _windows(
        self,
        x: Tensor,
        size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil: bool = False,
    ) -> None:
        """The gap between the two largest of each window; ties of zeros are those of ReLUs that are off."""
        pair = lambda v: (v[0], v[-1]) if isinstance(v, list | tuple) and v else (v, v)  # noqa: E731
        (a, b), (s, t), (p, q) = pair(size), pair(stride or size), pair(padding)
        x = F.pad(x.detach(), (q, q + t, p, p + s), value=float("-inf"))
        if a * b > 1:
            self._gap(x.unfold(-2, a, s).unfold(-2, b, t).flatten(-2))

    def _adaptive(self, x: Tensor, size: Any) -> None:
        rows, columns = (
            [(i * n // k, -(-(i + 1) * n // k)) for i in range(k)]
            for n, k in zip(x.shape[-2:], size, strict=True)
        )
        for a, b in rows:
            for c, d in columns:
                if (b - a) * (d - c) > 1:
                    self._gap(x[..., a:b, c:d].detach().flatten(-2))

    def _gap(self, windows: Tensor) -> None:
        top = windows.topk(2, -1).values
        gap = (top[..., 0] - top[..., 1])[(top[..., 1] > float("-inf")) & (top[..., 0] != 0)]
        if gap.numel():
            self.distance = min(self.distance, float(gap.min()))


def watched(run: Callable[[], Any]) -> Watch:
    """What a call of ``run`` meets; with gradients on, as torch takes fused paths without."""
    watch = Watch()
    with watch, torch.enable_grad():
        run()
    return watch


def margin(run: Callable[[], Any]) -> float:
    """The least distance of any input of a kinked operation to its kink; infinite where there is none."""
    return watched(run).distance


def sides(run: Callable[[], Any]) -> list[Tensor]:
    """On which side of every kink the inputs lie: equal lists mean one smooth piece of the function."""
    return watched(run).sides
