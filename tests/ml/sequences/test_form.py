"""A form shows each sequence as its plain reference does, alone or among others."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.common.errors import ConfigError, VigilError
from ml.common.files import sha256_json, write_json
from ml.sequences import CompiledForm, Form, Item, Sequences, gather, load_vocabulary, tokenise
from ml.sequences.form import CONTENTS
from ml.sequences.vocabulary import CLS, EMPTY, MASK, SEP, grow
from tests.ml.sequences.plain_form import Token, plain_show
from tests.ml.synthetic_log import as_events, event, person

CODES = ("ICD10CM//I50.1", "ICD10CM//I50.9", "ICD10CM//I10", "ATC//C07AB02", "ICD10PCS//0", "LOINC//1-1", "SOURCE//X")
COUNTS = {**dict.fromkeys(CODES, 99), "GENDER//F": 99, "GENDER//M": 99}
VOCABULARY = grow(EMPTY, COUNTS, {"LOINC//1-1": np.linspace(0, 9, 100, dtype=np.float32)})
IDS = VOCABULARY.ids
EVENTS = [number for number, name in enumerate(VOCABULARY.tokens) if "//" in name and "GENDER" not in name]

FORMS = st.builds(
    Form,
    longest=st.integers(8, 24),
    contents=st.lists(st.sampled_from(CONTENTS), unique=True).map(tuple),
    sex=st.booleans(),
    codes=st.sampled_from(["full", "truncated"]),
    values=st.booleans(),
    separators=st.booleans(),
    next_visit=st.booleans(),
)


@st.composite
def sequences(draw: st.DrawFn) -> list[Token]:
    """[CLS], what is static, visits with ascending numbers and descending days."""
    static = draw(st.lists(st.sampled_from([IDS["GENDER//F"], IDS["[UNK]"], IDS["SOURCE//X"]]), unique=True))
    found = [Token(token, 20_000, 0, 0) for token in (CLS, *static)]
    visits = draw(st.lists(st.lists(st.sampled_from([*EVENTS, 1]), min_size=1, max_size=6), max_size=6))
    for number, tokens in enumerate(visits, 1):
        found += [Token(token, 19_000 + number, 1000 - number, number) for token in tokens]
    return found


def store(patients: list[list[Token]], now: int = 19_000) -> Sequences:
    flat = [token for patient in patients for token in patient]
    arrays = [np.array([getattr(t, name) for t in flat], np.int32) for name in ("token", "age", "day", "visit")]
    offsets = np.concatenate(([0], np.cumsum([len(patient) for patient in patients])))
    count = len(patients)
    return Sequences(np.arange(count), offsets, *arrays, np.full(count, now, np.int32), np.zeros(count, bool))


@settings(max_examples=300, deadline=None)
@given(st.lists(sequences(), min_size=1, max_size=5), FORMS, st.randoms(use_true_random=False))
def test_a_batch_shows_each_sequence_as_the_plain_form_does(patients: list[list[Token]], form: Form, random) -> None:
    half = len(patients) // 2
    stores = [store(patients[:half], 18_000), store(patients[half:], 19_000)]
    source = Item(
        stores,
        np.array([0] * half + [1] * (len(patients) - half)),
        np.array([*range(half), *range(len(patients) - half)]),
    )
    compiled, items = CompiledForm.of(form, VOCABULARY), np.array(random.sample(range(len(patients)), len(patients)))
    batch, lengths = gather(source, items, compiled), source.lengths(compiled)
    for row, item in enumerate(items):
        wanted = plain_show(patients[item], form, VOCABULARY)
        length = len(wanted)
        assert (length, length) == (batch.lengths[row], lengths[item])
        found = zip(
            *(getattr(batch, name)[row, :length].tolist() for name in ("tokens", "ages", "days", "visits")), strict=True
        )
        assert [Token(*token) for token in found] == wanted
        assert (batch.tokens[row, length:] == 0).all()
        assert batch.serial[row, :length].tolist() == [
            sum(other.visit == token.visit for other in wanted[:place]) if token.visit else 0
            for place, token in enumerate(wanted)
        ]
        assert batch.now[row] == (18_000 if item < half else 19_000)


@pytest.mark.parametrize("next_visit", [False, True])
@pytest.mark.parametrize("separators", [False, True])
def test_a_patient_without_an_event_is_shown_in_every_form(separators: bool, next_visit: bool) -> None:
    form = Form(8, contents=(), sex=False, separators=separators, next_visit=next_visit)
    batch = gather(
        Item([store([[Token(CLS, 20_000, 0, 0)]])], np.array([0]), np.array([0])),
        np.array([0]),
        CompiledForm.of(form, VOCABULARY),
    )
    assert batch.tokens[0, : batch.lengths[0]].tolist() == [CLS, *[SEP] * separators, *[MASK] * next_visit]


def test_no_items_make_an_empty_batch() -> None:
    source = Item([store([[Token(CLS, 1, 0, 0)]])], np.zeros(0, np.int64), np.zeros(0, np.int64))
    compiled = CompiledForm.of(Form(separators=True), VOCABULARY)
    assert gather(source, np.zeros(0, np.int64), compiled).lengths.size == 0
    assert source.lengths(compiled).size == 0


def test_the_default_form_shows_what_is_stored() -> None:
    assert CompiledForm.of(Form(), VOCABULARY).as_stored
    assert not CompiledForm.of(Form(codes="truncated"), VOCABULARY).as_stored


def test_a_form_too_short_or_with_unknown_contents_is_refused() -> None:
    with pytest.raises(ConfigError, match="too short"):
        Form(7)
    with pytest.raises(ConfigError, match="no contents images"):
        Form(contents=("diagnosis", "images"))  # type: ignore[arg-type]


def test_a_vocabulary_without_separators_is_refused(tmp_path) -> None:
    tokens = ["[PAD]", "[UNK]", "[MASK]", "[CLS]", "ICD10CM//I10"]
    digest = sha256_json({"tokens": tokens, "bins": {}})
    write_json(tmp_path / "vocabulary.json", {"tokens": tokens, "bins": {}, "digest": digest})
    with pytest.raises(VigilError, match="older version"):
        load_vocabulary(tmp_path / "vocabulary.json")


def test_a_long_stay_counts_once_it_has_ended_by_the_index_day() -> None:
    rows = [
        part
        for who, (end, days) in enumerate([("2023-06-30", 7.5), ("2023-07-01", 30.0), ("2023-01-01", 7.0)])
        for part in (person(who), event(who, "VISIT_END//inpatient", f"{end}T10:00", value=days))
    ]
    made = tokenise(as_events(pl.concat(rows)), date(2023, 6, 30), VOCABULARY)
    assert made.long_stays.tolist() == [True, False, False]
    assert (made.now == (date(2023, 6, 30) - date(1970, 1, 1)).days).all()
