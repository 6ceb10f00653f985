"""What a position is: the sum of code, category, visit, order in the visit, age, time and place, as configured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout
from ml.models.inputs import Inputs

DAYS_PER_YEAR = 365.25
OLDEST = 120  # whole years that the age table tells apart
CORE_BEHRT_DAY = 18_287  # 2020-01-26, since 1970-01-01
CORE_BEHRT_AGE, CORE_BEHRT_HOURS, CORE_BEHRT_LIMIT = 1e-2, 1e-4, 100.0  # papers' scales of years and hours, and clamp
VIGIL_WEIGHT = 0.3  # of ages and times in the sum


class Time2Vec(nn.Module):
    """A scalar as one linear and ``size - 1`` periodic features with learned frequencies (Kazemi 2019, eq. 1).

    Args:
        limit: the linear feature stays within ± this (CORE-BEHRT).
    """

    def __init__(self, size: int, limit: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.phase = nn.Parameter(torch.randn(size))
        self.limit = limit

    def forward(self, scalar: Tensor) -> Tensor:
        """``[...]`` → ``[..., size]``."""
        angle = scalar[..., None] * self.weight + self.phase
        linear = angle[..., :1]
        if self.limit is not None:
            linear = linear.clamp(-self.limit, self.limit)
        return torch.cat((linear, torch.cos(angle[..., 1:])), dim=-1)


class Embeddings(nn.Module):
    """Sum of the parts, normalised: the input of the encoder. A part that is switched off has no weights."""

    parents: Tensor

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        limit = CORE_BEHRT_LIMIT if config.scales == "core_behrt" else None
        self.code = nn.Embedding(config.vocab_size, hidden)
        self.visit = nn.Embedding(config.visits, hidden) if config.visit == "number" else None
        self.age = Time2Vec(hidden, limit) if config.age == "time2vec" else None
        self.before = Time2Vec(hidden, limit) if config.time == "before" else None
        self.absolute = Time2Vec(hidden, CORE_BEHRT_LIMIT) if config.time == "absolute" else None
        self.segment = nn.Embedding(2, hidden) if config.visit == "alternating" else None
        self.age_table = nn.Embedding(OLDEST + 2, hidden) if config.age == "table" else None
        self.serial = nn.Embedding(config.serials, hidden) if config.serialization else None
        self.place = nn.Embedding(config.longest, hidden) if config.position == "learned" else None
        self.norm = nn.LayerNorm(hidden)
        self.dropout = Dropout(config.dropout)
        self.register_buffer("parents", torch.zeros(config.vocab_size, dtype=torch.int64))

    def table(self) -> Tensor:
        """``[vocabulary, hidden]``: the vector of every code."""
        return self._with_categories(self.code.weight, self.parents) if self.config.category_codes else self.code.weight

    def codes(self, tokens: Tensor) -> Tensor:
        """``[...]`` → ``[..., hidden]``: a code's own vector, plus its category's where configured and known."""
        own = self.code(tokens)
        return self._with_categories(own, self.parents[tokens]) if self.config.category_codes else own

    def _with_categories(self, own: Tensor, parents: Tensor) -> Tensor:
        known = (parents > 0).to(own.dtype)[..., None]
        # [PAD] stands for no category: its gradient is left out, not added up from every code that has none.
        return own + nn.functional.embedding(parents, self.code.weight, padding_idx=0) * known

    def forward(self, inputs: Inputs) -> Tensor:
        """``[batch, length, hidden]``."""
        parts = self.codes(inputs.tokens)  # [B, L, H]
        parts = self._with_visit(parts, inputs)
        parts = self._with_time(parts, inputs)
        if self.serial is not None:
            parts = parts + self.serial(inputs.serial.clamp(max=self.serial.num_embeddings - 1))
        if self.place is not None:
            places = torch.arange(inputs.tokens.shape[1], device=inputs.tokens.device)
            parts = parts + self.place(places.clamp(max=self.place.num_embeddings - 1))  # beyond the longest is padding
        if self.config.position == "visit":
            parts = parts + sinusoids(inputs.visits, self.config.hidden)
        return self.dropout(self.norm(parts))

    def _with_visit(self, parts: Tensor, inputs: Inputs) -> Tensor:
        if self.visit is not None:
            return parts + self.visit(inputs.visits.clamp(max=self.visit.num_embeddings - 1))
        if self.segment is not None:  # what is static belongs to the first visit, as BEHRT's [CLS] does
            return parts + self.segment((inputs.visits - 1).clamp(min=0) % 2)
        return parts

    def _with_time(self, parts: Tensor, inputs: Inputs) -> Tensor:
        weight = VIGIL_WEIGHT if self.config.scales == "vigil" else 1.0
        if self.age is not None:
            scalar = age_feature(inputs.ages) if self.config.scales == "vigil" else years(inputs.ages) * CORE_BEHRT_AGE
            parts = parts + weight * self.age(scalar) * (inputs.ages >= 0)[..., None]
        if self.age_table is not None:
            parts = parts + self.age_table(torch.where(inputs.ages >= 0, years(inputs.ages), OLDEST + 1))
        if self.before is not None:
            parts = parts + weight * self.before(torch.log1p(inputs.days.float()))
        if self.absolute is not None:
            parts = parts + weight * self.absolute(core_behrt_hours(inputs) * CORE_BEHRT_HOURS)
        return parts


def age_feature(ages: Tensor) -> Tensor:
    """Age in days → about -2.5 … 2.5: 20 years a unit, 50 years at 0."""
    return (ages.float() / DAYS_PER_YEAR - 50.0) / 20.0


def years(ages: Tensor) -> Tensor:
    """Age in days → whole years, 0 … 120."""
    return (ages.float() / DAYS_PER_YEAR).floor().long().clamp(0, OLDEST)


def core_behrt_hours(inputs: Inputs) -> Tensor:
    """``[batch, length]`` hours from 2020-01-26 to the event; events have days, so steps of 24."""
    return (inputs.now[:, None] - inputs.days - CORE_BEHRT_DAY).float() * 24.0


def sinusoids(places: Tensor, size: int) -> Tensor:
    """``[...]`` → ``[..., size]``: sines and cosines of a place (Vaswani 2017, section 3.5), not learned."""
    features = torch.arange(size, device=places.device)
    rate = 10_000.0 ** (-(features // 2 * 2) / size)
    angle = places[..., None].float() * rate
    return torch.where(features % 2 == 0, torch.sin(angle), torch.cos(angle))
