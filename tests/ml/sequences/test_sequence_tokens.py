"""From views to token stores: nothing from after the index day, and the same result however often it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.cohorts import open_run, split_of
from ml.common.errors import VigilError
from ml.extraction import read_view
from ml.sequences import load_vocabulary, open_store, prepare, store_path, tokenise
from ml.sequences.tokens import Sequences
from ml.sequences.vocabulary import CLS, EMPTY, UNK, grow
from tests.ml.synthetic_log import as_events, commit, deployment, event, make_events, person

DAY = date(2023, 6, 30)
COUNTS = {"ICD10CM//I10": 9, "ICD10CM//I50.9": 9, "GENDER//F": 9, "LOINC//4548-4": 99}
VOCABULARY = grow(EMPTY, COUNTS, {"LOINC//4548-4": np.linspace(4, 9, 100, dtype=np.float32)})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with deployment(tmp_path, index_days="2"):
        yield tmp_path


def same(one: Sequences, other: Sequences) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Sequences))


def names(sequences: Sequences) -> list[str]:
    return [VOCABULARY.tokens[token] for token in sequences.tokens]


def test_a_sequence_is_cls_then_what_is_static_then_events_in_time_order() -> None:
    view = as_events(
        pl.concat(
            [
                person(0, born="1963-06-30"),
                event(0, "RACE//X", None),
                event(0, "VISIT//inpatient", "2023-06-20T08:00"),
                event(0, "ICD10CM//I50.9", "2023-06-20T09:00"),
                event(0, "LOINC//4548-4", "2023-06-20T10:00", value=8.9),
                event(0, "ICD10CM//I10", "2020-06-30T09:00"),
                event(0, "ICD10CM//I10", "2021-06-30T09:00"),
                event(0, "ICD10CM//I10", "2022-06-30T09:00"),
                event(0, "ATC//X01", "2023-06-30T23:59"),
            ]
        )
    )
    made = tokenise(view, DAY, VOCABULARY)
    assert names(made) == [
        "[CLS]", "GENDER//F", "ICD10CM//I10", "ICD10CM//I10", "ICD10CM//I50.9", "LOINC//4548-4//Q5", "[UNK]"
    ]  # fmt: skip
    assert made.days.tolist() == [0, 0, 1095, 365, 10, 10, 0]
    assert made.visits.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert (made.ages // 365.25).tolist() == [60, 60, 57, 59, 59, 59, 60]


def test_unknown_static_facts_do_not_take_the_place_of_cls() -> None:
    view = as_events(pl.concat([event(0, "SITE//Z", None), event(0, "ICD10CM//I10", "2020-01-01")]))
    made = tokenise(view, DAY, VOCABULARY)
    assert made.tokens[:2].tolist() == [CLS, UNK]
    assert (made.ages == -1).all()


def test_what_is_recorded_or_dated_after_the_index_day_never_changes_its_features(home: Path) -> None:
    known = make_events(60, 20)
    later = as_events(
        pl.concat(
            [event(who, "ICD10CM//I50.9", "2020-01-01", recorded="2023-07-01T00:00") for who in range(60)]
            + [event(who, "ICD10CM//I10", "2023-07-01T00:00", recorded="2023-01-01") for who in range(60)]
        )
    ).with_columns(source_key=pl.col("source_key") + "/later")
    snapshot = commit(pl.concat([known, later]), shards=1)
    before = tokenise(known.filter(pl.col("recorded_at") < pl.datetime(2023, 7, 1)), DAY, VOCABULARY)
    assert same(tokenise(read_view(snapshot, DAY, 0), DAY, VOCABULARY), before)
    assert not same(tokenise(read_view(snapshot, date(2023, 7, 1), 0), date(2023, 7, 1), VOCABULARY), before)


def test_the_vocabulary_is_learned_from_train_patients_by_the_test_day_only(home: Path) -> None:
    rows = [part for who in range(60) for part in (person(who), event(who, "ICD10CM//I10", "2020-01-01"))]
    tuning = [who for who in range(60) if split_of(who + 1, "vigil-split-1") != "train"]
    rows += [event(who, "ICD10CM//Z99.1", "2020-01-01") for who in tuning]
    rows += [event(who, "ICD10CM//Y83.1", "2024-01-01") for who in range(60)]
    commit(as_events(pl.concat(rows)))
    prepare(open_run())
    tokens = load_vocabulary(open_run().vocabulary).tokens
    assert "ICD10CM//I10" in tokens
    assert not {token for token in tokens if "Z99" in token or "Y83" in token}
    assert len(tuning) >= 5


def test_preparing_twice_or_after_a_kill_gives_the_same_files(home: Path) -> None:
    commit(make_events(80, 20))
    run = open_run()
    first = prepare(run)
    path = store_path(run.path, run.test_day, 0)
    stamp = (path / "tokens.npy").stat().st_mtime_ns
    made = Sequences(**{f.name: np.array(getattr(open_store(path), f.name)) for f in fields(Sequences)})
    assert prepare(run) == first
    assert (path / "tokens.npy").stat().st_mtime_ns == stamp
    (path / "manifest.json").unlink()  # as if the process had died before it was whole
    (path / "tokens.npy").write_bytes(b"half")
    assert prepare(run) == first
    assert same(open_store(path), made)


def test_shards_together_hold_what_one_shard_holds(home: Path, tmp_path: Path) -> None:
    events = make_events(80, 20)
    snapshot = commit(events, shards=4)
    parts = [tokenise(read_view(snapshot, DAY, shard), DAY, VOCABULARY) for shard in range(4)]
    with deployment(tmp_path / "one"):
        whole = tokenise(read_view(commit(events, shards=1), DAY, 0), DAY, VOCABULARY)
    assert sorted(s for part in parts for s in part.subjects) == whole.subjects.tolist()
    for part in parts:
        for i, subject in enumerate(part.subjects):
            j = int(np.searchsorted(whole.subjects, subject))
            mine = part.tokens[part.offsets[i] : part.offsets[i + 1]]
            assert np.array_equal(mine, whole.tokens[whole.offsets[j] : whole.offsets[j + 1]])


def test_a_grown_vocabulary_starts_from_the_initial_models(home: Path) -> None:
    commit(make_events(80, 20))
    initial = home / "champion"
    initial.mkdir()
    old = grow(EMPTY, {"ICD10CM//Q99.9": 9}, {})
    old.save(initial / "vocabulary.json")
    prepare(open_run(), initial)
    grown = load_vocabulary(open_run().vocabulary)
    assert grown.extends(old)
    assert grown.size > old.size


def test_sequences_of_another_vocabulary_or_of_no_run_are_refused(home: Path) -> None:
    commit(make_events(80, 20))
    run = open_run()
    with pytest.raises(VigilError, match="no sequences"):
        open_store(store_path(run.path, run.test_day, 0))
    prepare(run)
    with pytest.raises(VigilError, match="another vocabulary"):
        open_store(store_path(run.path, run.test_day, 0), "not this one")


def test_a_log_without_train_events_by_the_test_day_is_refused(home: Path) -> None:
    commit(as_events(event(0, "ICD10CM//I10", "2024-06-01")))
    with pytest.raises(VigilError, match="no train-split patient"):
        prepare(open_run())
