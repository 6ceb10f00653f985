"""Dropout with a random generator of its own: copies of a model on threads stay deterministic."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero a share of the features in training and scale the rest (Srivastava 2014)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def seed(self, seed: int, device: torch.device) -> None:
        """Draw from an own generator from now on."""
        self.generator = torch.Generator(device).manual_seed(seed)

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or not self.share:
            return hidden
        kept = torch.rand(hidden.shape, generator=self.generator, device=hidden.device) >= self.share
        return hidden * (kept * (1.0 / (1.0 - self.share)))
