"""The end of a stay is an event of its own, known once a version of the visit has it."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from ml.settings import Settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE
from tests.ml.sources.source_rows import Event, events

ADMITTED = date(2024, 1, 5)
KEY = 900


@pytest.fixture
def small(vigil: Settings) -> None:
    hospital.build()


def ends(key: int = KEY) -> list[Event]:
    return [row for row in events("visit_occurrence") if row.source_key == f"visit_occurrence/{key}/end"]


def discharged(days: int) -> list[str]:
    """Codes of the end of the stay in the view of the day on which its newest version was recorded."""
    return hospital.codes_of(hospital.view(hospital.night(BASE + timedelta(days=days))), f"visit_occurrence/{KEY}/end")


def test_a_stay_ends_with_its_length_in_days(small: None) -> None:
    hospital.add_visit(
        KEY,
        3,
        ADMITTED,
        recorded=date(2024, 1, 15),
        visit_start_datetime=datetime(2024, 1, 5, 18),
        visit_end_date=date(2024, 1, 15),
        visit_end_datetime=datetime(2024, 1, 15, 6),
    )
    (end,) = ends()
    assert (end.code, end.time, end.numeric_value, end.visit_id) == (
        "VISIT_END//inpatient",
        datetime(2024, 1, 15, 6),
        9.5,
        KEY,
    )


def test_the_end_is_known_when_it_is_recorded_and_not_before(small: None) -> None:
    hospital.add_visit(KEY, 3, ADMITTED, recorded=BASE, visit_end_date=None)
    assert discharged(0) == []
    hospital.add_visit(KEY, 3, ADMITTED, recorded=BASE + timedelta(days=1), visit_end_date=date(2024, 1, 9))
    assert discharged(1) == ["VISIT_END//inpatient"]


def test_an_end_that_a_correction_takes_away_is_gone(small: None) -> None:
    hospital.add_visit(KEY, 3, ADMITTED, recorded=BASE, visit_end_date=date(2024, 1, 9))
    assert discharged(0) == ["VISIT_END//inpatient"]
    hospital.add_visit(KEY, 3, ADMITTED, recorded=BASE + timedelta(days=1), visit_end_date=None)
    assert discharged(1) == []


def test_a_planned_end_is_none_until_it_has_come(small: None) -> None:
    planned = BASE + timedelta(days=3)
    hospital.add_visit(KEY, 3, BASE, recorded=BASE, visit_end_date=planned)
    assert discharged(0) == []
    hospital.add_visit(KEY, 3, BASE, recorded=planned, visit_end_date=planned)
    assert discharged(3) == ["VISIT_END//inpatient"]


def test_an_outpatient_visit_within_a_day_has_no_end(small: None) -> None:
    hospital.add_visit(KEY, 3, ADMITTED, visit_concept_id=9202)
    assert ends() == []
