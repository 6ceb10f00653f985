"""Heads: the decoder of masked codes, the logits of the outcomes, Med-BERT's second objective."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml.common.errors import VigilError
from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout
from ml.models.embeddings import age_feature
from ml.models.inputs import Inputs
from ml.models.pooling import Pool, pooled
from ml.sequences.vocabulary import SPECIALS

AGE_POWERS = 3  # the heads see the age, its square and its cube


class Decoder(nn.Module):
    """Hidden states → code logits (BERT's masked language head), weights tied to the code embeddings or its own."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.GELU(), nn.LayerNorm(config.hidden))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.own = None if config.tied else nn.Linear(config.hidden, config.vocab_size, bias=False)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """``[n, hidden]``, ``[vocabulary, hidden]`` → ``[n, vocabulary]``."""
        weights = table if self.own is None else self.own.weight
        return self.transform(hidden) @ weights.T + self.bias


class Heads(nn.Module):
    """One linear head per outcome on the pooled sequence and, where configured, the age.

    Beside it, where the configuration says so, a linear path from the codes present (Cheng 2016, wide and deep):
    on small hospitals much of the signal is additive, and the encoder then learns what is not.
    """

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        outcomes = len(config.outcomes)
        self.dropout = Dropout(config.dropout)
        self.pool = Pool(config)
        self.age_powers = AGE_POWERS if config.age_powers else 0
        self.out = nn.Linear(self.pool.width + self.age_powers, outcomes)
        self.codes = nn.Parameter(torch.zeros(config.vocab_size, outcomes)) if config.linear_path else None

    def forward(self, hidden: Tensor, inputs: Inputs, parents: Tensor) -> Tensor:
        """``[batch, length, hidden]`` → ``[batch, outcomes]``."""
        features = self.dropout(self.pool(hidden, inputs))
        if self.age_powers:
            ages = inputs.ages[:, 0]  # at the index day: [CLS] carries it
            age = age_feature(ages) * (ages >= 0)
            powers = torch.stack([age ** (power + 1) for power in range(self.age_powers)], dim=-1)  # [B, 3]
            features = torch.cat((features, powers), dim=-1)
        logits = self.out(features)
        if self.codes is None:
            return logits
        return logits + present(inputs.tokens, parents, self.codes.shape[0]) @ self.codes


class CodeHeads(nn.Module):
    """The state whose decoded codes say an outcome's odds: the pooled sequence (Med-BERT-Sum), or the [MASK] of the
    next visit (Med-BERT-Mask; He 2025). Without weights of its own, but for the pooling's."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        check_outcome_codes(config)
        self.pool = Pool(config) if config.head == "sum" else None

    def forward(self, hidden: Tensor, inputs: Inputs) -> Tensor:
        """``[batch, length, hidden]`` → ``[batch, hidden]``; of the [MASK] alone ``[batch, 1, hidden]`` comes in."""
        return hidden[:, 0] if self.pool is None else self.pool(hidden, inputs)


class LongStay(nn.Module):
    """Med-BERT's second objective on the summed output: was there any stay of more than 7 days (Rasmy 2021)?"""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden, 1)

    def forward(self, hidden: Tensor, inputs: Inputs) -> Tensor:
        """``[batch, length, hidden]`` → ``[batch]`` logits."""
        return self.out(pooled(hidden, inputs, "sum"))[:, 0]


def heads_of(config: MedBertConfig) -> Heads | CodeHeads | None:
    """The outcome heads that a configuration asks for; None without outcomes."""
    if not config.outcomes:
        return None
    return Heads(config) if config.head == "binary" else CodeHeads(config)


def log_odds(logits: Tensor, outcome_codes: Sequence[Sequence[int]]) -> Tensor:
    """Log-odds that the code is one of an outcome's: ``logsumexp(z[C]) - logsumexp(z[not C])``, which is the logit of
    the softmax's sum over C and stays exact where that sum rounds to 0 or 1.

    Args:
        logits: ``[n, vocabulary]``.
        outcome_codes: ids C of each outcome, none empty; all together they must leave out part of the vocabulary, as
            the specials are.

    Returns:
        ``[n, outcomes]``.
    """
    logits = logits.float()
    named = sorted({code for codes in outcome_codes for code in codes})
    inside = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    inside[named] = True
    # What no outcome names is added up once for all of them: the vocabulary is not copied for each.
    rest = torch.logsumexp(logits.masked_fill(inside, float("-inf")), dim=-1, keepdim=True)
    columns = torch.cat((logits[:, named], rest), dim=-1)  # [n, named + 1]
    odds = []
    for codes in outcome_codes:
        own = [place for place, code in enumerate(named) if code in codes]
        others = [place for place in range(len(named) + 1) if place not in set(own)]
        odds.append(torch.logsumexp(columns[:, own], dim=-1) - torch.logsumexp(columns[:, others], dim=-1))
    return torch.stack(odds, dim=-1)


def check_outcome_codes(config: MedBertConfig) -> None:
    """Every outcome must have codes, all in the vocabulary.

    Raises:
        VigilError: names the first outcome that has not.
    """
    given = config.outcome_codes + [[]] * (len(config.outcomes) - len(config.outcome_codes))
    for outcome, codes in zip(config.outcomes, given, strict=True):
        if not codes:
            raise VigilError(
                f"no code of the vocabulary stands for the outcome {outcome}, so its odds cannot be decoded",
                "use a preset with the head 'binary', or leave the outcome out",
            )
        if not all(len(SPECIALS) <= code < config.vocab_size for code in codes):
            raise VigilError(f"the outcome {outcome} has codes outside the vocabulary", "train again")


def present(tokens: Tensor, parents: Tensor, vocabulary: int) -> Tensor:
    """``[batch, vocabulary]``: 1 where a code, or a code of the category, is in the sequence; [PAD] never is."""
    seen = torch.zeros(tokens.shape[0], vocabulary, device=tokens.device)
    seen.scatter_(1, tokens, 1.0)
    seen.scatter_(1, parents[tokens], 1.0)
    seen[:, 0] = 0.0
    return seen
