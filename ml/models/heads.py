"""Heads: the decoder of masked codes, and one logit per outcome on a pooled representation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout
from ml.models.embeddings import age_feature

AGE_POWERS = 3  # the heads see the age, its square and its cube


class Decoder(nn.Module):
    """Hidden states → code logits, weights tied to the embedding table (BERT's masked language head)."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.GELU(), nn.LayerNorm(config.hidden))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """``[n, hidden]``, ``[vocabulary, hidden]`` → ``[n, vocabulary]``."""
        return self.transform(hidden) @ table.T + self.bias


class Heads(nn.Module):
    """One linear head per outcome on [CLS], the mean over the sequence and the age.

    Beside it, where the configuration says so, a linear path from the codes present (Cheng 2016, wide and deep):
    on small hospitals much of the signal is additive, and the encoder then learns what is not.
    """

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        outcomes = len(config.outcomes)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden + AGE_POWERS, outcomes)
        self.codes = nn.Parameter(torch.zeros(config.vocab_size, outcomes)) if config.linear_path else None

    def forward(self, hidden: Tensor, tokens: Tensor, ages: Tensor, lengths: Tensor, parents: Tensor) -> Tensor:
        """``[batch, length, hidden]`` and the batch's tokens, ages, lengths → ``[batch, outcomes]``."""
        real = (torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]).to(hidden.dtype)
        mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)  # [B, H]
        age = age_feature(ages[:, 0]) * (ages[:, 0] >= 0)  # [B], at the index day: [CLS] carries it
        age_powers = torch.stack([age ** (power + 1) for power in range(AGE_POWERS)], dim=-1)  # [B, 3]
        pooled = torch.cat((hidden[:, 0], mean), dim=-1)
        features = torch.cat((self.dropout(pooled), age_powers), dim=-1)
        logits = self.out(features)
        if self.codes is None:
            return logits
        return logits + present(tokens, parents, self.codes.shape[0]) @ self.codes


def present(tokens: Tensor, parents: Tensor, vocabulary: int) -> Tensor:
    """``[batch, vocabulary]``: 1 where a code, or a code of the category, is in the sequence; [PAD] never is."""
    seen = torch.zeros(tokens.shape[0], vocabulary, device=tokens.device)
    seen.scatter_(1, tokens, 1.0)
    seen.scatter_(1, parents[tokens], 1.0)
    seen[:, 0] = 0.0
    return seen
