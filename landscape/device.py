"""Where to compute, and with which kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve(name: str) -> torch.device:
    """``auto`` -> CUDA where there is one, else CPU; any other name as torch knows it.

    Raises:
        ValueError: a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} is not usable here: {str(error).splitlines()[0]}"
        ) from None
    return device


@contextmanager
def exact_kernels() -> Iterator[None]:
    """Deterministic convolutions in full float32: TF32 would cost the meta-gradient three digits."""
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        yield
