"""Packed sorting and length-bucketed batches against plain references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml.common.errors import VigilError
from ml.sequences.batches import Item, gather, padded, plan
from ml.sequences.form import CompiledForm, Form
from ml.sequences.packing import (
    EPOCH_MINUTE,
    MAX_MINUTES,
    MAX_SUBJECTS,
    MAX_TOKENS,
    days_of,
    first_and_latest,
    minutes_of,
    offsets_of,
    pack,
    tokens_of,
)
from ml.sequences.tokens import Sequences

LAST_MINUTE = EPOCH_MINUTE + MAX_MINUTES - 1
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, MAX_SUBJECTS - 1]),
        st.sampled_from([EPOCH_MINUTE, EPOCH_MINUTE + 1, -1, 0, 1, LAST_MINUTE]) | st.integers(-9, 9),
        st.sampled_from([0, 1, 2, MAX_TOKENS - 1]),
    ),
    max_size=60,
)


def packed(events: list[tuple[int, int, int]]) -> np.ndarray:
    columns = zip((0, 1, 2), (np.int32, np.int64, np.int32), strict=True)
    return pack(*(np.array([event[i] for event in events], kind) for i, kind in columns))


@given(EVENTS)
def test_the_first_and_latest_event_of_each_token_are_kept_in_order(events: list[tuple[int, int, int]]) -> None:
    found = first_and_latest(np.sort(packed(events)))
    expected = set()
    for row, token in {(r, t) for r, _, t in events}:
        minutes = [m for r, m, t in events if (r, t) == (row, token)]
        expected |= {(row, min(minutes), token), (row, max(minutes), token)}
    kept = zip((found >> 43).tolist(), minutes_of(found).tolist(), tokens_of(found).tolist(), strict=True)
    assert list(kept) == sorted(expected)


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ((MAX_SUBJECTS, 0, 0), "more than 1,048,576 subjects in one shard: raise VIGIL_SHARDS"),
        ((0, 0, MAX_TOKENS), "more than 32,768 tokens in the vocabulary: raise MINIMUM_COUNT"),
        ((0, EPOCH_MINUTE - 1, 0), "1 events are dated before 1714-10-23T05:52 or after 2225-03-11T18:07: correct"),
        ((0, LAST_MINUTE + 1, 0), "1 events are dated before"),
    ],
)
def test_a_number_that_does_not_fit_its_bits_is_refused_with_cause_and_remedy(
    event: tuple[int, int, int], cause: str
) -> None:
    packed([(MAX_SUBJECTS - 1, LAST_MINUTE, MAX_TOKENS - 1)])
    with pytest.raises(VigilError, match=cause):
        packed([(0, 0, 0), event])


@given(hnp.arrays(np.int32, 40, elements=st.integers(EPOCH_MINUTE, LAST_MINUTE)))
def test_days_are_minutes_divided_and_rounded_down(minutes: np.ndarray) -> None:
    assert days_of(minutes).tolist() == [minute // 1440 for minute in minutes.tolist()]


def test_offsets_count_subjects_without_events() -> None:
    of_four = np.sort(packed([(0, 3, 1), (0, -3, 2), (2, 0, 0)]))
    assert offsets_of(of_four, 0, 4).tolist() == [0, 2, 2, 3, 3]
    assert offsets_of(of_four, 1, 3).tolist() == [2, 2, 3]


@given(hnp.arrays(np.int64, st.integers(0, 80), elements=st.integers(1, 200)), st.integers(64, 2048), st.booleans())
def test_every_sequence_is_in_one_batch_and_batches_keep_their_budget(
    lengths: np.ndarray, budget: int, shuffled: bool
) -> None:
    batches = plan(lengths, budget, np.random.default_rng(1) if shuffled else None)
    assert sorted(i for batch in batches for i in batch) == list(range(lengths.size))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * padded(int(lengths[batch].max())) <= budget


def store(lengths: list[int]) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    count = np.arange(offsets[-1], dtype=np.int32)
    visits = np.concatenate([np.maximum(np.arange(n, dtype=np.int32) - 2, 0) for n in lengths])  # [CLS] and two more
    now, stays = np.full(len(lengths), 19_000, np.int32), np.arange(len(lengths)) == 1
    return Sequences(np.arange(len(lengths)), offsets, count + 5, count, count, visits, now, stays)


def longest(number: int) -> CompiledForm:
    return CompiledForm(Form(number), None)


def test_a_batch_holds_each_sequence_and_padding_after_it() -> None:
    source = Item([store([3, 18]), store([5])], np.array([0, 0, 1]), np.array([0, 1, 0]))
    batch = gather(source, np.array([2, 1]), longest(64))
    assert batch.tokens.shape == (2, 32)
    assert batch.tokens[0].tolist() == [5, 6, 7, 8, 9] + [0] * 27
    assert batch.tokens[1, :18].tolist() == list(range(8, 26))
    assert batch.lengths.tolist() == [5, 18]
    assert batch.long_stays.tolist() == [False, True]
    assert batch.now.tolist() == [19_000, 19_000]
    assert (batch.ages[0, 5:] == -1).all()


def test_a_long_sequence_keeps_what_is_static_and_its_latest_events() -> None:
    source = Item([store([20])], np.array([0]), np.array([0]))
    batch = gather(source, np.array([0]), longest(8))
    assert batch.tokens[0, :8].tolist() == [5, 6, 7, 20, 21, 22, 23, 24]
    assert source.lengths(longest(8)).tolist() == [8]
