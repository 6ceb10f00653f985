"""Every expectation of the code's own list passes good data and fails on data made bad for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ml.extraction.log import FileRecord, Partition, shard_name
from ml.extraction.view import COLUMNS
from ml.quality.aggregates import ask_aggregates, ask_schema, measures_of
from ml.quality.counting import Tally
from ml.quality.drift import measure_drift
from ml.quality.expectations import Examiner, code_suite, event_suite
from ml.quality.frames import codes_frame, events_frame
from ml.quality.rules import AGGREGATE_RULES, CODED_KINDS_LEFT_OUT, ROW_RULES
from ml.quality.suites import PARTITION, SUITES, every_expectation, suite_of
from ml.settings import get_settings
from ml.sources.meds import MEDS
from ml.sources.mimic_iv import MIMIC_IV
from ml.sources.omop import OMOP
from tests.ml.quality.invented_weeks import KIND, LAST, OTHER, USUAL, weeks
from tests.ml.quality.test_expectations import good_piece

Nights = list[Partition]


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    return Examiner()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIGIL_DATA", str(tmp_path))
    get_settings.cache_clear()


def changed(row: int, **changes: object) -> Callable[[], pl.DataFrame]:
    """Good rows, one of them changed."""

    def make() -> pl.DataFrame:
        piece = good_piece()
        for column, value in changes.items():
            values = piece[column].to_list()
            values[row] = value
            piece = piece.with_columns(pl.Series(column, values, dtype=piece.schema[column]))
        return piece

    return make


def last(**changes: object) -> Callable[[], Nights]:
    """Good weeks, something of the last night changed."""

    def make() -> Nights:
        nights = weeks()
        return [*nights[:-1], replace(nights[-1], **changes)]  # type: ignore[arg-type]

    return make


def half_unmapped() -> Nights:
    nights = weeks()
    return [*nights[:-7], *(replace(night, unmapped={KIND: 100}) for night in nights[-7:])]


ROWS: dict[str, Callable[[], pl.DataFrame]] = {
    "time_present": changed(7, time=None),
    "not_after_recorded": changed(7, time=datetime(2024, 1, 11)),
    "not_before_birth": changed(7, time=datetime(1949, 12, 31)),
    "not_after_death": changed(7, death_end=datetime(2024, 1, 9)),
    "plausible_birth": changed(0, time=datetime(1893, 12, 31)),
    "numeric_finite": changed(7, numeric_value=float("inf")),
    "unique_version": changed(7, source_key="condition_occurrence/8"),
}
CODES = {
    "code_present": "SOURCE//",
    "code_system_icd10cm": "ICD10CM//I509",
    "code_system_icd9cm": "ICD9CM//4280",
    "code_system_atc": "ATC//A10BA2",
    "code_system_loinc": "LOINC//4548",
}
NIGHTS: dict[str, Callable[[], Nights]] = {
    "recorded_by_as_of": last(only_later=(OTHER,)),
    "rows_placed": last(unplaced={KIND: 1}),
    "mostly_placed": lambda: [replace(weeks()[-1], recorded_from=None, unplaced={KIND: 50})],
    "volume": last(days={str(LAST): 900}),
    "volume_of_kind": last(rows={KIND: 320, OTHER: 100}),
    "kind_present": last(rows={KIND: 200}),
    "code_stability": lambda: weeks({**dict.fromkeys(USUAL, 2), "ICD10CM//I10": 182}),
    "codes_new": lambda: weeks({**dict.fromkeys(USUAL, 18), "ICD10CM//J10": 20}),
    "codes_vanished": lambda: weeks(dict.fromkeys(list(USUAL)[1:], 22)),
    "dictionary_share": lambda: weeks({**dict.fromkeys(USUAL, 15), "SOURCE//x": 50}, {**USUAL, "SOURCE//x": 5}),
    "mapping_share": half_unmapped,
}
UNMAPPED = {"unmapped_codes": 60, "mostly_mapped": 290}  # of 300 rows


def fails(name: str, examiner: Examiner, *, bad: bool) -> bool:
    """Whether an expectation fails on data that are good, or made bad for it."""
    if name in ROWS:
        kind = next(kind for kind, suite in SUITES.items() if name in suite.rows)
        piece = ROWS[name]() if bad else good_piece()
        return name in {f.name for f in examiner.ask(events_frame(piece), event_suite(kind)) if not f.success}
    if name in CODES:
        codes = ["MEDS_BIRTH", "ICD10CM//I50.9", *([CODES[name]] if bad else [])]
        frame = codes_frame(pl.DataFrame({"row": range(len(codes)), "code": codes}))
        return name in {f.name for f in examiner.ask(frame, code_suite()) if not f.success}
    if name == "schema":
        return ask_schema(examiner, written(bad=bad)).outcome == AGGREGATE_RULES[name].severity
    nights = NIGHTS[name]() if bad and name in NIGHTS else weeks()
    unmapped = UNMAPPED[name] if bad and name in UNMAPPED else 0
    tally = Tally(kinds=Counter({KIND: 200, OTHER: 100}), unmapped=Counter({KIND: min(unmapped, 200)}))
    tally.unmapped[OTHER] = unmapped - tally.unmapped[KIND]
    drift = measure_drift(nights[-1], nights[:-1])
    results = ask_aggregates(examiner, measures_of(nights[-1], nights[:-1], tally, drift))
    found = {result.expectation: result.outcome for result in results if result.outcome != "pass"}
    assert bad or not found
    return found.get(name) == AGGREGATE_RULES[name].severity


def written(*, bad: bool) -> Partition:
    """A partition whose only file has the event schema, or a column of another type."""
    found = Partition(LAST, LAST, LAST, {}, "kept", 1, "a", files={shard_name(0): FileRecord("", 0, 0)})
    found.path.mkdir(parents=True, exist_ok=True)
    schema = {**COLUMNS, "subject_id": pl.String} if bad else COLUMNS
    pl.DataFrame(schema=schema).write_parquet(str(found.shard_file(0)))
    return found


@pytest.mark.parametrize("name", every_expectation())
def test_an_expectation_passes_good_data_and_fails_on_data_made_bad_for_it(examiner: Examiner, name: str) -> None:
    """An expectation without a mutation fails here, for it is in none of the tables above."""
    assert not fails(name, examiner, bad=False)
    assert fails(name, examiner, bad=True)


def test_every_mutation_is_of_an_expectation() -> None:
    assert {*ROWS, *CODES, *NIGHTS, *UNMAPPED, "schema"} == set(every_expectation())


def test_every_kind_of_every_source_has_its_suite() -> None:
    assert {*OMOP.kinds, *MIMIC_IV.kinds} == set(SUITES)
    assert set(suite_of(*MEDS.kinds).all) >= set(ROW_RULES), "its one kind has every sort of record in it"
    for suite in SUITES.values():
        assert set(suite.all) <= set(every_expectation()) - set(PARTITION)
    listed = {name for suite in SUITES.values() for name in suite.all}
    assert listed | set(PARTITION) == set(every_expectation())


def test_the_suite_of_a_kind_is_what_is_asked_of_its_rows() -> None:
    for kind in SUITES:
        assert {expectation.meta["name"] for expectation in event_suite(kind)} == set(suite_of(kind).rows)
    assert set(suite_of("a kind of an adapter to come").all) >= set(ROW_RULES)
    assert "unmapped_codes" not in suite_of(CODED_KINDS_LEFT_OUT[-1]).aggregates
