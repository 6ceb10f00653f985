"""What a position is: code and category, visit number, age at the event, time before the index day."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout

DAYS_PER_YEAR = 365.25


class Time2Vec(nn.Module):
    """A scalar as one linear and ``size - 1`` periodic features with learned frequencies (Kazemi 2019, eq. 1)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.phase = nn.Parameter(torch.randn(size))

    def forward(self, scalar: Tensor) -> Tensor:
        """``[...]`` → ``[..., size]``."""
        angle = scalar[..., None] * self.weight + self.phase
        return torch.cat((angle[..., :1], torch.cos(angle[..., 1:])), dim=-1)


class Embeddings(nn.Module):
    """Sum of the parts, normalised: the input of the encoder."""

    parents: Tensor

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.code = nn.Embedding(config.vocab_size, config.hidden)
        self.visit = nn.Embedding(config.visits, config.hidden)
        self.age = Time2Vec(config.hidden)
        self.before = Time2Vec(config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.dropout = Dropout(config.dropout)
        self.register_buffer("parents", torch.zeros(config.vocab_size, dtype=torch.int64))

    def table(self) -> Tensor:
        """``[vocabulary, hidden]``: a code's own vector plus its category's, if it has one."""
        known = (self.parents > 0).to(self.code.weight.dtype)[:, None]
        return self.code.weight + self.code.weight[self.parents] * known

    def forward(self, tokens: Tensor, ages: Tensor, days: Tensor, visits: Tensor) -> Tensor:
        """``[batch, length]`` each (ages and days in days) → ``[batch, length, hidden]``."""
        known_age = (ages >= 0)[..., None]
        parts = nn.functional.embedding(tokens, self.table())  # [B, L, H]
        parts = parts + self.visit(visits.clamp(max=self.visit.num_embeddings - 1))
        parts = parts + 0.3 * self.age(age_feature(ages)) * known_age
        parts = parts + 0.3 * self.before(torch.log1p(days.float()))
        return self.dropout(self.norm(parts))


def age_feature(ages: Tensor) -> Tensor:
    """Age in days → about -2.5 … 2.5: 20 years a unit, 50 years at 0."""
    return (ages.float() / DAYS_PER_YEAR - 50.0) / 20.0
