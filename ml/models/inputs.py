"""A batch of sequences as tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ml.sequences.batches import Batch


@dataclass(frozen=True)
class Inputs:
    """``tokens, ages, days, visits, serial [batch, length]``, ``lengths, now [batch]``.

    Ages in days (-1 unknown), ``days`` before the index day, ``serial`` the order within the visit, ``now`` the index
    day in days since 1970-01-01.
    """

    tokens: Tensor
    ages: Tensor
    days: Tensor
    visits: Tensor
    serial: Tensor
    lengths: Tensor
    now: Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device | None = None) -> Inputs:
        tensors = {field.name: torch.from_numpy(getattr(batch, field.name)).long().to(device) for field in fields(cls)}
        return cls(**tensors)

    @property
    def real(self) -> Tensor:
        """Bool ``[batch, length]``: no padding."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None, :] < self.lengths[:, None]
