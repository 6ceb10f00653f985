"""Each expectation passes good data and fails on data made bad for it."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ml.extraction.log import Partition
from ml.quality.counting import outcome_of
from ml.quality.expectations import Examiner, aggregate_suite, code_suite, event_suite, schema_suite
from ml.quality.frames import BEYOND, codes_frame, events_frame, expected_schema
from ml.quality.rules import CODE_SYSTEMS
from ml.quality.volume import volume_departure

ROWS = 50
EVERY = "a kind of an adapter to come"  # has every expectation on rows


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    return Examiner()


def good_piece() -> pl.DataFrame:
    """What ``read_piece`` gives of fifty blameless rows; the first is a birth, the second is static."""
    noon = datetime(2024, 1, 10, 12)
    end = datetime(2024, 1, 10, 23, 59, 59, 999999)
    birth = datetime(1950, 1, 1)
    return pl.DataFrame(
        {
            "row": range(ROWS),
            "subject_id": [1] * ROWS,
            "source_key": [f"condition_occurrence/{n}" for n in range(ROWS)],
            "recorded_at": [noon] * ROWS,
            "time": [birth, None] + [datetime(2024, 1, 10)] * (ROWS - 2),
            "static": [False, True] + [False] * (ROWS - 2),
            "recorded_end": [end] * ROWS,
            "birth": [birth] * ROWS,
            "death_end": [None] + [end] * (ROWS - 1),
            "oldest": [datetime(1894, 1, 1)] * ROWS,
            "code": ["MEDS_BIRTH", "GENDER//F"] + ["ICD10CM//I50.9"] * (ROWS - 2),
            "numeric_value": [None] + [1.5] * (ROWS - 1),
        },
        schema_overrides={"numeric_value": pl.Float32, "time": pl.Datetime("us"), "death_end": pl.Datetime("us")},
    )


def failures(examiner: Examiner, piece: pl.DataFrame) -> dict[str, tuple[int, tuple[int, ...]]]:
    found = examiner.ask(events_frame(piece), event_suite(EVERY), rows=True)
    assert all(finding.at_fault == len(finding.rows) for finding in found)
    return {finding.name: (finding.at_fault, finding.rows) for finding in found if not finding.success}


def test_good_rows_pass_every_expectation(examiner: Examiner) -> None:
    assert failures(examiner, good_piece()) == {}
    counts = examiner.ask(events_frame(good_piece()), event_suite(EVERY))
    assert {finding.name for finding in counts} == {
        *("time_present", "not_after_recorded", "not_before_birth", "not_after_death"),
        *("plausible_birth", "numeric_finite", "unique_version"),
    }


@pytest.mark.parametrize(
    ("expectation", "row", "changes"),
    [
        ("time_present", 7, {"time": None}),
        ("not_after_recorded", 7, {"time": datetime(2024, 1, 11), "death_end": None}),
        ("not_before_birth", 7, {"time": datetime(1949, 12, 31)}),
        ("not_after_death", 7, {"death_end": datetime(2024, 1, 9)}),
        ("plausible_birth", 0, {"time": datetime(1893, 12, 31), "birth": None}),
        ("numeric_finite", 7, {"numeric_value": float("nan")}),
        ("numeric_finite", 7, {"numeric_value": float("inf")}),
        ("numeric_finite", 7, {"numeric_value": float("-inf")}),
    ],
)
def test_an_expectation_finds_the_row_made_bad_for_it(
    examiner: Examiner, expectation: str, row: int, changes: dict[str, object]
) -> None:
    piece = good_piece()
    for column, value in changes.items():
        values = piece[column].to_list()
        values[row] = value
        piece = piece.with_columns(pl.Series(column, values, dtype=piece.schema[column]))
    assert failures(examiner, piece) == {expectation: (1, (row,))}


def test_a_row_recorded_twice_is_found(examiner: Examiner) -> None:
    piece = good_piece()
    keys = piece["source_key"].to_list()
    keys[8] = keys[7]
    assert failures(examiner, piece.with_columns(source_key=pl.Series(keys))) == {"unique_version": (2, (7, 8))}


GOOD_CODES = {
    "ICD10CM": ["I10", "I50.9", "S72.001A", "C7A.00", "Z38.00"],
    "ICD9CM": ["428", "428.0", "250.83", "V58.67", "E849.8"],
    "ATC": ["A", "A10", "A10B", "A10BA", "A10BA02"],
    "LOINC": ["4548-4", "2160-0"],
}
BAD_CODES = {
    "ICD10CM": ["I509", "i50.9", "I50.", "250.83", "I50.9 "],
    "ICD9CM": ["4280", "25083", "428.000", "I50.9", "V5.1"],
    "ATC": ["A10BA2", "a10ba02", "A1", "A10BA021"],
    "LOINC": ["4548", "4548-44", "LP1234-5"],
}


def ask_codes(examiner: Examiner, codes: list[str]) -> dict[str, tuple[int, ...]]:
    frame = pl.DataFrame({"row": range(len(codes)), "code": codes})
    return {f.name: f.rows for f in examiner.ask(codes_frame(frame), code_suite(), rows=True) if not f.success}


@pytest.mark.parametrize("vocabulary", sorted(CODE_SYSTEMS))
def test_codes_of_a_system_have_its_form(examiner: Examiner, vocabulary: str) -> None:
    name = f"code_system_{vocabulary.lower()}"
    good = [f"{vocabulary}//{code}" for code in GOOD_CODES[vocabulary]]
    assert ask_codes(examiner, good) == {}
    bad = [f"{vocabulary}//{code}" for code in BAD_CODES[vocabulary]]
    assert ask_codes(examiner, [*good, *bad]) == {name: tuple(range(len(good), len(good) + len(bad)))}


@pytest.mark.parametrize("code", ["SOURCE//", "//I50.9", "", " ", "SOURCE// x"])
def test_a_code_without_vocabulary_or_value_is_found(examiner: Examiner, code: str) -> None:
    assert ask_codes(examiner, ["MEDS_BIRTH", "SNOMED//22298006", code]) == {"code_present": (2,)}


def test_a_column_too_many_too_few_or_of_another_type_is_found(examiner: Examiner) -> None:
    columns = expected_schema()
    other_type = [name.replace("subject_id: Int64", "subject_id: String") for name in columns]
    for found, good in ((columns, True), (columns[1:], False), ([*columns, "x: Int64"], False), (other_type, False)):
        finding = examiner.ask(pd.DataFrame(columns=found), schema_suite(columns))[0]
        assert finding.success is good


def test_an_aggregate_beyond_its_limit_is_found(examiner: Examiner) -> None:
    values = pd.DataFrame({"a": [0.2], "b": [0.3]})
    found = examiner.ask(values, aggregate_suite({"a": 0.2, "b": 0.2}))
    assert {finding.name: finding.success for finding in found} == {"a": True, "b": False}


@pytest.mark.parametrize(("rows", "departs"), [(100, False), (151, True), (49, True), (0, True)])
def test_volume_is_compared_with_the_same_weekday_of_four_weeks(rows: int, departs: bool) -> None:
    today = date(2024, 2, 1)
    weekday = {str(today - timedelta(days=back)): 100 for back in range(7, 29, 7)}
    others = {str(today - timedelta(days=back)): 900 for back in range(1, 29) if back % 7}
    base = Partition(today - timedelta(days=1), None, today - timedelta(days=1), {}, "kept", 4, days=weekday | others)
    night = Partition(today, today, today, {}, "kept", 4, days={str(today): rows} if rows else {})
    assert (volume_departure(night, [base]) > 1) is departs


def test_a_base_load_has_no_volume_to_compare_with() -> None:
    days = {str(date(2024, 1, 1) + timedelta(days=n)): 100 for n in range(31)}
    base = Partition(date(2024, 1, 31), None, date(2024, 1, 31), {}, "kept", 4, days={**days, "2024-01-31": 9_000})
    assert volume_departure(base, []) == 0


@pytest.mark.parametrize(
    ("at_fault", "checked", "whole", "outcome"),
    [
        (0, 5, False, "pass"),
        (5, 5, True, "block"),  # a whole kind of record in the base load
        (1, 1, False, "warn"),  # one bad row on a quiet night
        (10, 100, False, "warn"),
        (11, 100, False, "block"),
        (11, 1100, False, "warn"),
        (12, 1100, False, "block"),
    ],
)
def test_a_few_rows_at_fault_warn_and_many_block(at_fault: int, checked: int, whole: bool, outcome: str) -> None:
    assert outcome_of(at_fault, checked, whole=whole) == outcome


def test_what_is_no_number_is_beyond_every_float32() -> None:
    assert float(np.finfo(np.float32).max) < BEYOND
