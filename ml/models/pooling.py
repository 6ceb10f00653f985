"""One vector per sequence out of its hidden states; padding never counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ml.models.config import MedBertConfig
from ml.models.inputs import Inputs
from ml.models.switches import WIDE_POOLING, Pooling


class Pool(nn.Module):
    """``[batch, length, hidden]`` → ``[batch, width]``; attention and BiGRU learn how."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.kind = config.pooling
        self.width = config.hidden * (2 if config.pooling in WIDE_POOLING else 1)
        self.score = nn.Linear(config.hidden, 1, bias=False) if config.pooling == "attention" else None
        bigru = config.pooling == "bigru"
        self.gru = nn.GRU(config.hidden, config.hidden, batch_first=True, bidirectional=True) if bigru else None

    def forward(self, hidden: Tensor, inputs: Inputs) -> Tensor:
        if self.gru is not None:
            return self._last_and_first(hidden, inputs.lengths, self.gru)
        if self.score is not None:
            scores = self.score(hidden)[..., 0].masked_fill(~inputs.real, float("-inf"))
            return (torch.softmax(scores, dim=-1)[..., None] * hidden).sum(1)
        if self.kind == "first_mean":
            return torch.cat((pooled(hidden, inputs, "first"), pooled(hidden, inputs, "mean")), dim=-1)
        return pooled(hidden, inputs, self.kind)

    @staticmethod
    def _last_and_first(hidden: Tensor, lengths: Tensor, gru: nn.GRU) -> Tensor:
        """CORE-BEHRT: what the GRU says after the last real token forwards, and after the first backwards."""
        tokens = pack_padded_sequence(hidden, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, ends = gru(tokens)  # [2, B, H]
        return torch.cat((ends[0], ends[1]), dim=-1)


def pooled(hidden: Tensor, inputs: Inputs, kind: Pooling) -> Tensor:
    """``[batch, hidden]`` by a pooling without weights: first, mean, max or sum."""
    if kind == "first":
        return hidden[:, 0]
    if kind == "max":
        return hidden.masked_fill(~inputs.real[..., None], float("-inf")).max(1).values
    real = inputs.real.to(hidden.dtype)
    total = (hidden * real[..., None]).sum(1)
    return total if kind == "sum" else total / real.sum(1, keepdim=True)


def last(hidden: Tensor, inputs: Inputs) -> Tensor:
    """``[batch, hidden]`` at the last real position."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), inputs.lengths - 1]
