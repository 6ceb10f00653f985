"""For any past day D, snapshot(D) is what a from-scratch extraction gave on D, whatever nights were run since and how.

A random hospital that keeps history lives day by day: inserts, late rows, corrections, deletions, records that move or
come back, patients who are merged. On some days a night is run, on others none; some are rerun; afterwards every day is
backfilled, from the log of the nights and from one base load at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.extraction import commit_snapshot, extract
from ml.quality import validate
from ml.settings import Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE

DAYS = 5
PERSONS = range(2, 7)
KINDS = ("insert", "late", "correct", "delete", "move", "revive", "merge", "birth", "lab", "death", "wrong")
_numbers = itertools.count()


@dataclass
class Hospital:
    """What the source holds, as far as the next change must know it."""

    now: datetime
    owner: dict[int, int] = field(default_factory=lambda: {n: n for n in PERSONS})  # condition → person
    gone: set[int] = field(default_factory=set)
    next_key: int = 1000

    def change(self, kind: str, person: int, pick: int) -> None:
        """Add the versions of one change, recorded now."""
        self.now += timedelta(minutes=7)
        key = sorted(self.owner)[pick % len(self.owner)]
        if kind in ("insert", "late", "wrong"):
            back = {"insert": 0, "late": 40, "wrong": -400}[kind]  # wrong: it lies in the future, quality sets it aside
            self._condition(self._new_key(person), person, self.now.date() - timedelta(days=back))
        elif kind in ("correct", "revive"):
            self._condition(key, self.owner[key], date(2024, 1, 3), concept=102 + pick % 2)
        elif kind == "delete":
            self._condition(key, self.owner[key], date(2024, 1, 3), removed=True)
        elif kind == "move":
            self.owner[key] = person
            self._condition(key, person, date(2024, 1, 3))
        elif kind == "merge":
            self._merge(self.owner[key], person)
        elif kind == "birth":
            self._add("person", person_id=person, gender_concept_id=8507, year_of_birth=1930 + pick)
        elif kind == "lab":
            lab: dict[str, Any] = {
                "measurement_id": self._new_key(None),
                "person_id": person,
                "measurement_concept_id": 301,
            }
            self._add(
                "measurement", **lab, measurement_date=self.now.date(), value_as_number=[4.5, None, -0.0][pick % 3]
            )
        else:
            self._add("death", person_id=person, death_date=self.now.date(), removed=pick % 2 == 0)

    def _merge(self, old: int, new: int) -> None:
        if old == new:
            return
        for key in [key for key, owner in self.owner.items() if owner == old]:
            self.owner[key] = new
            self._condition(key, new, date(2024, 1, 3))
        self._add("person", person_id=old, gender_concept_id=8532, year_of_birth=1950, removed=True)

    def _new_key(self, person: int | None) -> int:
        self.next_key += 1
        if person is not None:
            self.owner[self.next_key] = person
        return self.next_key

    def _condition(self, key: int, person: int, day: date, concept: int = 101, *, removed: bool = False) -> None:
        columns = {"condition_occurrence_id": key, "person_id": person, "condition_concept_id": concept}
        self._add("condition_occurrence", **columns, condition_start_date=day, removed=removed)

    def _add(self, table: str, **columns: Any) -> None:
        hospital.add(table, recorded_at=self.now, **columns)


@dataclass(frozen=True)
class Day:
    """What happens on one day, and whether its night is run: not at all, or so many times."""

    changes: list[tuple[str, int, int]]
    nights: int


changes = st.tuples(st.sampled_from(KINDS), st.sampled_from(PERSONS), st.integers(0, 40))
histories = st.lists(
    st.builds(Day, st.lists(changes, max_size=5), st.sampled_from([0, 1, 1, 2])), min_size=DAYS, max_size=DAYS
)


@pytest.fixture
def small(vigil: Settings) -> Settings:
    hospital.build()
    return vigil


def _reset() -> None:
    """The hospital as it was built; faster than building it anew."""
    for table in ("condition_occurrence", "person", "measurement", "death"):
        hospital.run(f"delete from ehr.{table} where recorded_at >= '2024-02-01'")  # noqa: S608 (names from here)


def _check(history: list[Day], place: Path, patch: pytest.MonkeyPatch, judge: Callable[[date], object]) -> None:
    _reset()
    nightly, base = place / "nightly", place / "base"
    truth: dict[date, str] = {}
    source = Hospital(datetime.min)
    for number, day in enumerate(history):
        today = BASE + timedelta(days=number + 1)
        source.now = datetime.combine(today, datetime.min.time())
        with hospital.together():
            for change in day.changes:
                source.change(*change)
        truth[today] = _night(place / f"scratch-{number}", today, patch, judge)
        for _ in range(day.nights):
            assert _night(nightly, today, patch, judge) == truth[today]
    last = max(truth)
    assert _night(base, last, patch, judge) == truth[last]
    for log in (nightly, base):
        for today in truth:  # every day again: those skipped are backfilled, the others are found
            assert _night(log, today, patch, judge) == truth[today], (log.name, today)


def _night(data: Path, today: date, patch: pytest.MonkeyPatch, judge: Callable[[date], object]) -> str:
    patch.setenv("VIGIL_DATA", str(data))
    get_settings.cache_clear()
    if not extract(today).covered:
        extract(today)  # again: it replaces what is pending
        judge(today)
    commit_snapshot(today)
    return commit_snapshot(today).digest


usual = settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@usual
@given(history=histories)
def test_a_past_day_is_what_it_was_whatever_nights_were_run_since(
    small: Settings, tmp_path: Path, history: list[Day]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _check(history, tmp_path / str(next(_numbers)), patch, hospital.accept)
    get_settings.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(usual, max_examples=20)
@given(history=histories)
def test_a_past_day_is_what_it_was_with_rows_set_aside_by_quality(
    small: Settings, tmp_path: Path, history: list[Day]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _check(history, tmp_path / str(next(_numbers)), patch, validate)
    get_settings.cache_clear()


def test_the_comparison_notices_a_row_that_changed_without_a_version(small: Settings, tmp_path: Path) -> None:
    """The property can fail: here the source overwrites a row and says nothing."""
    with pytest.MonkeyPatch.context() as patch:
        first = _night(tmp_path / "first", BASE, patch, hospital.accept)
        hospital.run("update ehr.condition_occurrence set condition_concept_id = 102 where condition_occurrence_id = 4")
        assert _night(tmp_path / "second", BASE, patch, hospital.accept) != first
    get_settings.cache_clear()
