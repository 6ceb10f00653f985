"""Packed sorting and length-bucketed batches against plain references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml.common.errors import VigilError
from ml.sequences.batches import Item, gather, padded, plan
from ml.sequences.packing import EPOCH_MINUTE, MAX_MINUTES, MAX_SUBJECTS, MAX_TOKENS, Packed, offsets_of, sort_events
from ml.sequences.tokens import Sequences, first_and_latest

EVENTS = st.lists(
    st.tuples(
        st.integers(0, MAX_SUBJECTS - 1),
        st.integers(EPOCH_MINUTE, EPOCH_MINUTE + MAX_MINUTES - 1),
        st.integers(0, MAX_TOKENS - 1),
    ),
    max_size=60,
)


def columns(events: list[tuple[int, int, int]]) -> list[np.ndarray]:
    return [np.array([event[i] for event in events], np.int64) for i in range(3)]


def rows_of(packed: Packed) -> list[tuple[int, int, int]]:
    return [(int(r), int(m), int(t)) for r, m, t in zip(packed.rows, packed.minutes, packed.tokens, strict=True)]


@given(EVENTS)
def test_the_packed_sort_is_the_sort_of_distinct_rows(events: list[tuple[int, int, int]]) -> None:
    assert rows_of(sort_events(*columns(events))) == sorted(set(events))


@pytest.mark.parametrize(
    "event", [(MAX_SUBJECTS, 0, 0), (-1, 0, 0), (0, EPOCH_MINUTE - 1, 0), (0, -EPOCH_MINUTE, 0), (0, 0, MAX_TOKENS)]
)
def test_a_number_that_does_not_fit_its_bits_is_refused(event: tuple[int, int, int]) -> None:
    with pytest.raises(VigilError, match="more than"):
        sort_events(*columns([event]))


def test_offsets_count_subjects_without_events() -> None:
    assert offsets_of(np.array([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 4)), max_size=60))
def test_the_first_and_latest_event_of_each_token_are_kept(events: list[tuple[int, int, int]]) -> None:
    kept = rows_of(first_and_latest(sort_events(*columns(events))))
    expected = set()
    for row, token in {(r, t) for r, _, t in events}:
        minutes = [m for r, m, t in events if (r, t) == (row, token)]
        expected |= {(row, min(minutes), token), (row, max(minutes), token)}
    assert kept == sorted(expected)


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
    return Sequences(np.arange(len(lengths)), offsets, count + 4, count, count, count)


def test_a_batch_holds_each_sequence_and_padding_after_it() -> None:
    source = Item([store([3, 18]), store([5])], np.array([0, 0, 1]), np.array([0, 1, 0]))
    batch = gather(source, np.array([2, 1]), longest=64)
    assert batch.tokens.shape == (2, 32)
    assert batch.tokens[0].tolist() == [4, 5, 6, 7, 8] + [0] * 27
    assert batch.tokens[1, :18].tolist() == list(range(7, 25))
    assert batch.lengths.tolist() == [5, 18]
    assert (batch.ages[0, 5:] == -1).all()


def test_a_long_sequence_keeps_what_is_static_and_its_latest_events() -> None:
    source = Item([store([20])], np.array([0]), np.array([0]))
    batch = gather(source, np.array([0]), longest=8)
    assert batch.tokens[0, :8].tolist() == [4, 5, 6, 19, 20, 21, 22, 23]
    assert source.lengths(8).tolist() == [8]
