"""Where to compute, and with which kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


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
    """Deterministic kernels in full float32: TF32 would cost the meta-gradient three digits."""
    matmul = torch.backends.cuda.matmul
    earlier = matmul.allow_tf32
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        try:
            matmul.allow_tf32 = False
            yield
        finally:
            matmul.allow_tf32 = earlier


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread inside: long sums then come to the same bits whatever the number of threads outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def differentiable_kernels(recurrent: bool = True) -> Iterator[None]:
    """Kernels that have second derivatives, in reverse and in forward mode.

    Fused attention has none, nor have the recurrent layers of cuDNN and of oneDNN; those libraries are
    switched off only where there are ``recurrent`` layers, because convolutions are fast in them.
    """
    with sdpa_kernel(SDPBackend.MATH), ExitStack() as stack:
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(_without_onednn())
        yield


@contextmanager
def _without_onednn() -> Iterator[None]:
    # Not torch.backends.mkldnn.flags: it warns on machines without an Intel GPU.
    switch: Any = torch.backends.mkldnn.set_flags
    earlier = switch(_enabled=False, _fp32_precision=None)[0]
    try:
        yield
    finally:
        switch(_enabled=earlier, _fp32_precision=None)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device: what the system or the control group leaves."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_group_room()]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        table = dict(line.split(":", 1) for line in lines)
        limits.append(int(table["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        # No such file outside of Linux: half of the memory there is, where even that can be asked.
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min((limit for limit in limits if limit is not None), default=4 << 30)


def _group_room() -> int | None:
    """What the control group of a container or a batch job leaves, if it sets a limit."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text(encoding="ascii").strip()
        used = (root / "memory.current").read_text(encoding="ascii").strip()
        return max(int(limit) - int(used), 0)
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return None
