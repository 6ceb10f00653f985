"""The tokeniser against its plain reference, up to the borders of the bits that it packs events into."""

from __future__ import annotations

from dataclasses import fields
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.common.errors import VigilError
from ml.sequences import tokens
from ml.sequences.codes import Codebook
from ml.sequences.packing import MAX_SUBJECTS, MAX_TOKENS
from ml.sequences.tokens import Sequences, tokenise
from ml.sequences.vocabulary import EMPTY, SPECIALS, Vocabulary, grow
from tests.ml.sequences.plain_tokeniser import Event, plain_tokenise, view_of

DAY = date(2023, 6, 30)
COUNTS = {"ICD10CM//I50.9": 9, "ICD10CM//I10": 9, "ATC//C07AB02": 9, "GENDER//F": 9, "LOINC//1-1": 99, "LOINC//2-2": 99}
VALUES = {
    "LOINC//1-1": np.linspace(0, 9, 100, dtype=np.float32),
    "LOINC//2-2": np.repeat(np.arange(3, dtype=np.float32), 40),
}
VOCABULARY = grow(EMPTY, COUNTS, VALUES)
LEFT_OUT = ["MEDS_BIRTH", "MEDS_DEATH", "RACE//X", "ETHNICITY//X", "VISIT//inpatient", "VISIT_END//inpatient"]
UNKNOWN = ["ICD10CM//I50.91", "ICD10CM//Z99.1", "ATC//C07AB07", "LOINC//3-3", "MEDS_BIRTH//TWIN", "X//RACE//X"]
CODES = st.sampled_from([*COUNTS, "LOINC//1-1//Q2", *LEFT_OUT, *UNKNOWN])
FIRST = datetime(1970, 1, 1) - timedelta(minutes=1 << 27)
LAST = datetime(2023, 6, 30, 23, 59, 59, 999_999)
MICROSECOND = timedelta(microseconds=1)
TIMES = (
    st.none()
    | st.sampled_from([FIRST, FIRST + timedelta(minutes=1) - MICROSECOND, FIRST + timedelta(minutes=1)])
    | st.sampled_from([LAST, LAST + MICROSECOND, datetime(1970, 1, 1), datetime(1970, 1, 1) - MICROSECOND])
    | st.datetimes(datetime(2023, 6, 28), datetime(2023, 7, 1, 12))
    | st.datetimes(FIRST, datetime(2200, 1, 1))
)
BIN_EDGES = st.sampled_from([edge for edges in VOCABULARY.bins.values() for edge in edges])
NUMBERS = st.none() | st.floats(width=32) | st.floats(-1, 10, width=32) | BIN_EDGES
SUBJECTS = st.integers(-2, 4) | st.sampled_from([10**12, 2**62, -(2**62)])
EVENTS = st.lists(st.tuples(SUBJECTS, TIMES, CODES, NUMBERS), max_size=40)


def assert_same(one: Sequences, other: Sequences) -> None:
    for field in fields(Sequences):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert mine.dtype == theirs.dtype, field.name
        assert mine.tolist() == theirs.tolist(), field.name


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.sampled_from([DAY, date(2023, 6, 28), date(1969, 12, 31)]))
def test_the_tokeniser_equals_the_plain_one(events: list[Event], day: date) -> None:
    assert_same(tokenise(view_of(events), day, VOCABULARY), plain_tokenise(events, day, VOCABULARY))


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_of_the_view_and_the_size_of_its_pieces_change_nothing(events: list[Event], random: object) -> None:
    whole = tokenise(view_of(events), DAY, VOCABULARY)
    random.shuffle(events)  # type: ignore[attr-defined]
    pieces = pl.concat([view_of(events[:7]), view_of(events[7:])], rechunk=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "SLICE", 5)
        assert_same(tokenise(pieces, DAY, VOCABULARY), whole)


def test_a_long_history_equals_the_plain_one_across_pieces() -> None:
    draw, codes = np.random.default_rng(3), [*COUNTS, "VISIT//x", "ICD10CM//I50.91"]
    events: list[Event] = [
        (int(who), datetime(2020, 1, 1) + timedelta(minutes=int(minute)), codes[code], float(value))
        for who, minute, code, value in zip(
            draw.integers(0, 40, 3000), draw.integers(0, 2**21, 3000), draw.integers(0, 8, 3000), draw.random(3000) * 9,
            strict=True,
        )
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "SLICE", 500)
        assert_same(tokenise(view_of(events), DAY, VOCABULARY), plain_tokenise(events, DAY, VOCABULARY))


def test_the_last_token_that_15_bits_hold_is_told_apart_and_one_more_is_refused() -> None:
    names = (*SPECIALS, *(f"X//{number:05d}" for number in range(MAX_TOKENS - len(SPECIALS))))
    events: list[Event] = [(1, datetime(2020, 1, 1), names[-1], None), (1, datetime(2020, 1, 1), names[-2], None)]
    made = tokenise(view_of(events), DAY, Vocabulary(names, {}))
    assert made.tokens.tolist() == [3, MAX_TOKENS - 2, MAX_TOKENS - 1]
    events.append((1, None, "X//one more", None))
    with pytest.raises(VigilError, match="more than 32,768 tokens in the vocabulary: raise MINIMUM_COUNT"):
        tokenise(view_of(events), DAY, Vocabulary((*names, "X//one more"), {}))


def test_as_many_subjects_as_20_bits_hold_are_told_apart_and_one_more_is_refused() -> None:
    view = pl.DataFrame({"subject_id": np.arange(MAX_SUBJECTS + 1)}).with_columns(
        time=pl.lit(datetime(2020, 1, 1)).cast(pl.Datetime("us")),
        code=pl.lit("ICD10CM//I10"),
        numeric_value=pl.lit(None, dtype=pl.Float32),
    )
    made = tokenise(view.head(MAX_SUBJECTS), DAY, VOCABULARY)
    assert made.subjects.size == MAX_SUBJECTS
    assert (np.diff(made.offsets) == 2).all()
    with pytest.raises(VigilError, match="more than 1,048,576 subjects in one shard: raise VIGIL_SHARDS"):
        tokenise(view, DAY, VOCABULARY)


@pytest.mark.parametrize("code", ["ICD10CM//I10", "VISIT//x"])
def test_a_feature_dated_before_the_first_minute_is_refused_without_naming_it(code: str) -> None:
    events: list[Event] = [(7, FIRST - MICROSECOND, code, None), (7, FIRST, "ICD10CM//I10", None)]
    if code == "VISIT//x":
        assert tokenise(view_of(events), DAY, VOCABULARY).tokens.size == 2
        return
    with pytest.raises(VigilError, match="1 events are dated before 1714-10-23T05:52 or") as raised:
        tokenise(view_of(events), DAY, VOCABULARY)
    assert "I10" not in str(raised.value)
    assert "05:51" not in str(raised.value)


KINDS = [pl.Categorical, pl.Enum([*COUNTS, "LOINC//1-1//Q2", *LEFT_OUT, *UNKNOWN])]


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.sampled_from(KINDS))
def test_codes_may_come_dictionary_encoded(events: list[Event], kind: type[pl.Categorical] | pl.Enum) -> None:
    encoded = view_of(events).with_columns(pl.col("code").cast(kind))
    assert_same(tokenise(encoded, DAY, VOCABULARY), plain_tokenise(events, DAY, VOCABULARY))


def test_a_dictionary_that_has_grown_between_two_pieces_is_looked_up_anew() -> None:
    codebook, none = Codebook(VOCABULARY), pl.Series([None, None], dtype=pl.Float32)
    for codes in (["ICD10CM//I10", "GENDER//F"], ["ICD10CM//I50.91", "RACE//X"], ["GENDER//F", "X//new"]):
        encoded = pl.Series(codes, dtype=pl.Categorical)
        found = codebook.token_ids(encoded, none).tolist()
        assert found == [-1 if code == "RACE//X" else VOCABULARY.lookup(code) for code in codes]
    for kind in (pl.Enum(["RACE//X", "GENDER//F"]), pl.Enum(["GENDER//F", "RACE//X"])):
        encoded = pl.Series(["GENDER//F", "RACE//X"], dtype=kind)
        assert codebook.token_ids(encoded, none).tolist() == [VOCABULARY.lookup("GENDER//F"), -1]
