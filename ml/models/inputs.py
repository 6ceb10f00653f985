"""A batch of sequences as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml.sequences.batches import Batch


@dataclass(frozen=True)
class Inputs:
    """``tokens, ages, days, visits, serial [batch, length]``, ``lengths, now [batch]``.

    Ages in days (-1 unknown), ``days`` before the index day, ``serial`` the order within the visit, ``now`` the index
    day in days since 1970-01-01. ``total`` real tokens, None where only the device knows.
    """

    tokens: Tensor
    ages: Tensor
    days: Tensor
    visits: Tensor
    serial: Tensor
    lengths: Tensor
    now: Tensor
    total: int | None = None

    @classmethod
    def of(
        cls, batch: Batch, device: torch.device | None = None, tokens: npt.NDArray[np.int32] | None = None
    ) -> Inputs:
        """A batch on a device; ``tokens`` stand in place of its own, where codes are hidden."""
        shown = batch.tokens if tokens is None else tokens
        arrays = np.stack((shown, batch.ages, batch.days, batch.visits, batch.serial))  # one copy for all
        codes, ages, days, visits, serial = send(arrays, device).long()
        lengths, now = send(np.stack((batch.lengths, batch.now)), device).long()
        return cls(codes, ages, days, visits, serial, lengths, now, int(batch.lengths.sum()))

    @property
    def real(self) -> Tensor:
        """Bool ``[batch, length]``: no padding."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None, :] < self.lengths[:, None]


def send(array: npt.NDArray[Any], device: torch.device | None) -> Tensor:
    """An array as a tensor on a device. A GPU need not finish its work first: the copy waits in line with it."""
    tensor = torch.from_numpy(array)
    if device is None or device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
