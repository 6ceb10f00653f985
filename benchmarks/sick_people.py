"""Sequences that a model can learn from, made in memory for the benchmarks of training and scoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml.sequences.batches import Item
from ml.sequences.tokens import Sequences
from ml.sequences.vocabulary import CLS, SPECIALS

LONGEST = 512
MEAN_LENGTH, SPREAD = 76.0, 0.8  # of the lengths, log-normal before the cut
ILLNESSES, CODES_PER_ILLNESS, MOST_ILLNESSES = 60, 40, 3
NOISE = 0.2  # share of events that belong to no illness
PER_VISIT = 4  # events, on average
INDEX_AGES, HISTORY, TODAY = (6_500, 33_000), 3_000, 20_000  # days


def make_people(people: int, vocabulary: int, seed: int) -> Item:
    """[CLS], then events of a few illnesses per person, some codes of each far commoner than others (Zipf), and noise.

    A hidden code is best told from the person's others: what it learns shows in the loss. The illnesses are the same
    for every seed.

    Args:
        people: number of sequences.
        vocabulary: token ids in use, specials included.
        seed: of the people.
    """
    draw = np.random.default_rng(seed)
    lengths = draw_lengths(people, draw)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    total, owner = int(offsets[-1]), np.repeat(np.arange(people), lengths)
    illnesses = draw.integers(0, ILLNESSES, (people, MOST_ILLNESSES))
    share = np.sort(draw.dirichlet(np.ones(MOST_ILLNESSES), people).cumsum(1))
    which = illnesses[owner, (draw.random(total)[:, None] > share[owner, :-1]).sum(1)]
    tokens = _codes_of_illnesses(vocabulary)[which, _zipf(CODES_PER_ILLNESS, total, draw)]
    noise = draw.random(total) < NOISE
    tokens[noise] = draw.integers(len(SPECIALS), vocabulary, int(noise.sum()))
    tokens[offsets[:-1]] = CLS
    visits, days = _visits_and_days(offsets, owner, draw)
    index_age = draw.integers(*INDEX_AGES, people)[owner]
    sequences = Sequences(
        subjects=np.arange(people),
        offsets=offsets,
        tokens=tokens.astype(np.int32),
        ages=np.maximum(index_age - days, 0).astype(np.int32),
        days=days.astype(np.int32),
        visits=visits.astype(np.int32),
        now=np.full(people, TODAY, np.int32),
        long_stays=np.zeros(people, bool),
    )
    return Item([sequences], np.zeros(people, np.int64), np.arange(people))


def draw_lengths(people: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """``[people]`` log-normal lengths of `MEAN_LENGTH` after the cut to `LONGEST`."""
    raw = np.exp(SPREAD * draw.standard_normal(people))
    low, high = 1.0, MEAN_LENGTH
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(raw * middle, 4, LONGEST).mean() < MEAN_LENGTH else (low, middle)
    return np.clip(raw * low, 4, LONGEST).astype(np.int64)


def _codes_of_illnesses(vocabulary: int) -> npt.NDArray[np.int64]:
    """``[illnesses, codes]``: the commonest code first."""
    return np.random.default_rng(0).integers(len(SPECIALS), vocabulary, (ILLNESSES, CODES_PER_ILLNESS))


def _zipf(ranks: int, size: int, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    weights = 1.0 / np.arange(1, ranks + 1)
    return draw.choice(ranks, size, p=weights / weights.sum())


def _visits_and_days(
    offsets: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], draw: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Visit numbers from 1, and days before the index day, equal within a visit; both 0 for [CLS]."""
    first = np.zeros(owner.size, bool)
    first[offsets[:-1]] = True
    opens = draw.random(owner.size) < 1.0 / PER_VISIT
    opens[offsets[:-1][np.diff(offsets) > 1] + 1] = True
    opens[first] = False
    counted = np.cumsum(opens)
    visits: npt.NDArray[np.int64] = counted - counted[offsets[:-1]][owner]
    gaps = np.where(opens, draw.integers(1, HISTORY // 20, owner.size), 0)
    along = np.cumsum(gaps)
    last = along[offsets[1:] - 1][owner]
    days = last - along
    visits[first], days[first] = 0, 0
    return visits, days
