"""bf16 where the device multiplies it faster than fp32; elsewhere it can be a hundred times slower."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(where: torch.device) -> bool:
    """Whether the device has bf16 matrix instructions."""
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(where: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    return torch.autocast(where.type, dtype=torch.bfloat16) if has_fast_bf16(where) else nullcontext()
