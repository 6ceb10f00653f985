from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.interconnections.cohort import SEXES, UNKNOWN_BIRTH, Cohort, read_histories
from ml.interconnections.counting import count_ordered, count_together

CODES = ("ICD10CM//E11", "ICD10CM//I10", "ICD10CM//I50", "ICD9CM//250")
PATIENTS = st.lists(st.dictionaries(st.sampled_from(CODES), st.integers(0, 5)), min_size=1, max_size=12)


def events_of(patients: list[dict[str, int]], first: int = 0) -> list[tuple[int, int | None, str]]:
    visits = [(first + number, 0, "VISIT//inpatient") for number in range(len(patients))]
    return visits + [
        (first + n, day, f"{code}.9") for n, patient in enumerate(patients) for code, day in patient.items()
    ]


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("ICD10CM//E11.9", "ICD10CM//E11"),
        ("ICD10CM//C7A.00", "ICD10CM//C7A"),
        ("ICD10CM//I10", "ICD10CM//I10"),
        ("ICD9CM//250.00", "ICD9CM//250"),
        ("ICD9CM//V58.61", "ICD9CM//V58"),
        ("ICD9CM//E849.0", "ICD9CM//E849"),
        ("ICD9CM//25", None),
        ("ATC//A10BA02", None),
        ("LOINC//4548-4", None),
    ],
)
def test_a_diagnosis_is_cut_to_its_category_and_nothing_else_is_a_diagnosis(
    view: Callable[..., pl.DataFrame], code: str, category: str | None
) -> None:
    assert read_histories(view([(1, 3, code)])).codes == ((category,) if category else ())


def test_a_history_holds_the_first_day_of_each_category_and_the_observed_time(
    view: Callable[..., pl.DataFrame],
) -> None:
    events = [
        (7, None, "GENDER//F"), (7, -9000, "MEDS_BIRTH"), (7, 30, "ICD10CM//E11.9"), (7, 20, "ICD10CM//E11.65"),
        (7, None, "ICD10CM//I50.9"), (7, 10, "LOINC//4548-4"), (7, 45, "ATC//A10BA02"), (7, 40, "MEDS_DEATH"),
        (8, None, "GENDER//M"), (8, -8000, "MEDS_BIRTH"), (8, 50, "MEDS_DEATH"),
        (9, 5, "VISIT//outpatient"),
    ]  # fmt: skip
    histories = read_histories(view(events))
    assert histories.codes == ("ICD10CM//E11",)  # an undated diagnosis cannot be placed
    assert histories.patients == 2  # nothing clinical is known of 8
    assert histories.offsets.tolist() == [0, 1, 1]
    assert histories.day.tolist() == [20]
    assert histories.start.tolist() == [10, 5]
    assert histories.end.tolist() == [40, 5]  # death ends it, whatever is dated later
    assert histories.birth.tolist() == [-9000, UNKNOWN_BIRTH]
    assert [SEXES[number] for number in histories.sex] == ["F", ""]


def test_a_code_of_too_few_patients_is_dropped_wherever_they_are_sharded_and_the_number_is_told(
    cohort_of: Callable[..., Cohort],
) -> None:
    common = [{"ICD10CM//I10": 1, "ICD10CM//E11": 2}] * 5
    cohort = cohort_of(events_of(common), events_of([*common, {"ICD10CM//I10": 3}], first=100), min_cell=11)
    assert cohort.codes == ("ICD10CM//I10",)  # eleven patients; E11 has ten
    assert cohort.codes_left_out == 1
    assert count_together(cohort).tolist() == [[11]]


def test_patients_without_any_diagnosis_are_counted_too(cohort_of: Callable[..., Cohort]) -> None:
    assert cohort_of(events_of([{}, {}, {"ICD10CM//I10": 1}])).patients == 3


def test_an_empty_hospital_has_no_codes(cohort_of: Callable[..., Cohort]) -> None:
    cohort = cohort_of([], [])
    assert (cohort.codes, cohort.patients, count_together(cohort).shape) == ((), 0, (0, 0))


@settings(deadline=None, max_examples=40)  # the first call compiles
@given(PATIENTS)
def test_counts_are_those_of_a_plain_loop(cohort_of: Callable[..., Cohort], patients: list[dict[str, int]]) -> None:
    cohort = cohort_of(events_of(patients))
    together, ordered = count_together(cohort), count_ordered(cohort)
    for i, a in enumerate(cohort.codes):
        for j, b in enumerate(cohort.codes):
            having = [patient for patient in patients if a in patient and b in patient]
            assert together[i, j] == len(having)
            assert ordered[i, j] == sum(patient[a] < patient[b] for patient in having)


@settings(deadline=None, max_examples=40)  # the first call compiles
@given(PATIENTS, PATIENTS)
def test_counts_add_up_over_shards(
    cohort_of: Callable[..., Cohort], some: list[dict[str, int]], others: list[dict[str, int]]
) -> None:
    sharded = cohort_of(events_of(some), events_of(others, first=1000))
    whole = cohort_of(events_of(some + others))
    assert sharded.codes == whole.codes
    assert np.array_equal(count_together(sharded), count_together(whole))
    assert np.array_equal(count_ordered(sharded), count_ordered(whole))


def test_a_pair_on_one_day_counts_for_neither_direction(cohort_of: Callable[..., Cohort]) -> None:
    cohort = cohort_of(events_of([{"ICD10CM//E11": 4, "ICD10CM//I10": 4}]))
    assert count_ordered(cohort).sum() == 0
    assert count_together(cohort)[0, 1] == 1
