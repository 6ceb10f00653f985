"""Dropout with a random generator of its own on a CPU: copies of a model on threads stay deterministic."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zero a share of the features in training and scale the rest (Srivastava 2014).

    On a GPU one model works at a time, and torch's fused kernel draws from the device's generator.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def seed(self, seed: int) -> None:
        """Draw from an own generator from now on."""
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or not self.share:
            return hidden
        if hidden.device.type != "cpu":
            return functional.dropout(hidden, self.share)
        kept = torch.rand(hidden.shape, generator=self.generator) >= self.share
        return hidden * (kept * (1.0 / (1.0 - self.share)))
