"""Who is in scope, and why not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import check_disjoint, eligible, load_task, split_all
from ml.common.errors import ConfigError, VigilError
from tests.ml.synthetic_log import as_events, event, person

DAY = date(2023, 6, 30)
SEEN = "2023-01-10T09:00"


def scope(*rows: pl.DataFrame, task: str = "heart_failure") -> dict[int, str | None]:
    frame = eligible(as_events(pl.concat(rows)), DAY, load_task(task))
    assert ((frame["reason"].is_null()) == frame["eligible"]).all()
    return dict(frame.select("subject_id", "reason").iter_rows())


def test_an_adult_seen_lately_without_the_outcome_is_in_scope() -> None:
    assert scope(person(0), event(0, "ICD10CM//I10", SEEN)) == {1: None}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([event(0, "GENDER//F", None), event(0, "ICD10CM//I10", SEEN)], "no birth date"),
        ([person(0), event(0, "ICD10CM//I10", SEEN), event(0, "MEDS_DEATH", "2023-03-01")], "deceased"),
        ([person(0, born="2005-07-02"), event(0, "ICD10CM//I10", SEEN)], "under 18"),
        ([person(0), event(0, "ICD10CM//I10", "2021-06-30T10:00")], "no event in 730 days"),
        ([person(0), event(0, "SITE//A", SEEN)], "no event in 730 days"),
        ([person(0), event(0, "ICD10CM//I50.9", SEEN)], "prior outcome"),
        ([person(0), event(0, "ICD9CM//428.0", "2010-01-01"), event(0, "ICD10CM//I10", SEEN)], "prior outcome"),
    ],
)
def test_each_reason_keeps_a_subject_out(rows: list[pl.DataFrame], reason: str) -> None:
    assert scope(*rows) == {1: reason}


def test_limits_of_age_and_lookback_are_inclusive() -> None:
    assert scope(person(0, born="2005-07-01"), event(0, "ICD10CM//I10", SEEN)) == {1: None}
    assert scope(person(0), event(0, "ICD10CM//I10", "2021-07-01T00:00")) == {1: None}


def test_a_person_born_on_a_leap_day_comes_of_age() -> None:
    assert scope(person(0, born="2004-02-29"), event(0, "ICD10CM//I10", SEEN)) == {1: None}


def test_the_prior_outcome_is_the_tasks_own() -> None:
    rows = (person(0), event(0, "ICD10CM//I50.9", SEEN))
    assert scope(*rows, task="stroke") == {1: None}
    assert scope(person(0), event(0, "ICD10CM//E11.9", SEEN), task="type_2_diabetes") == {1: "prior outcome"}
    assert scope(person(0), event(0, "ICD10CM//E10.9", SEEN), task="type_2_diabetes") == {1: None}


@pytest.mark.parametrize(
    ("task", "code", "hit"),
    [
        ("stroke", "ICD10CM//I64", True),
        ("stroke", "ICD10CM//I65.2", False),
        ("stroke", "ICD9CM//434.91", True),
        ("stroke", "ICD9CM//435.9", False),
        ("stroke", "ICD9CM//436", True),
        ("type_2_diabetes", "ICD9CM//250.00", True),
        ("type_2_diabetes", "ICD9CM//250.42", True),
        ("type_2_diabetes", "ICD9CM//250.01", False),
        ("heart_failure", "ICD9CM//428", True),
        ("heart_failure", "ICD10CM//I51.0", False),
    ],
)
def test_outcome_codes(task: str, code: str, hit: bool) -> None:
    assert (scope(person(0), event(0, code, SEEN), task=task)[1] == "prior outcome") is hit


def test_the_tasks_of_the_night_begin_at_once_and_have_a_years_horizon() -> None:
    for name in ("death", "heart_failure", "stroke", "type_2_diabetes"):
        task = load_task(name)
        assert (task.delay_days, task.horizon_days) == (0, 365)
        assert task.excludes_prior


def test_age_history_and_population_are_each_tasks_own() -> None:
    sixty = event(0, "ICD10CM//I10", SEEN)
    assert scope(person(0, born="1963-07-02"), sixty, task="death_60_plus") == {1: "under 60"}
    assert scope(person(0, born="1963-07-01"), sixty, task="death_60_plus") == {1: None}
    assert scope(person(0), sixty, task="depression") == {1: "history shorter than 365 days"}
    assert scope(person(0), sixty, event(0, "ICD10CM//I10", "2022-07-01"), task="depression") == {1: None}
    old = event(0, "ICD10CM//I10", "2015-07-01")
    assert scope(person(0, sex="M"), sixty, old, task="breast_cancer") == {1: "outside the population: female"}
    assert scope(person(0), sixty, old, task="breast_cancer") == {1: None}


def test_a_pregnancy_is_at_risk_until_it_ends_or_has_the_outcome() -> None:
    mother = (person(0, born="1990-01-01"), event(0, "ICD10CM//Z34.81", "2023-05-01"))
    assert scope(*mother, task="preterm_birth") == {1: None}
    assert scope(*mother, event(0, "ICD10CM//O80", "2023-06-01"), task="preterm_birth") == {
        1: "outside the population: pregnant"
    }
    assert scope(*mother, event(0, "ICD10CM//O60.02", "2023-06-01"), task="preterm_birth") == {1: "prior outcome"}
    assert scope(*mother, event(0, "ICD10CM//O60.02", "2019-06-01"), task="preterm_birth") == {1: None}


def test_heart_failure_in_diabetes_asks_for_two_encounters_and_treatment_or_a_raised_hba1c() -> None:
    twice = [event(0, "ICD10CM//E11.9", "2020-01-01"), event(0, "ICD10CM//E11.9", "2021-01-01"), person(0)]
    seen, outside = event(0, "ICD10CM//I10", SEEN), "outside the population: type_2_diabetes"
    assert scope(*twice, seen, task="heart_failure_in_diabetes") == {1: outside}
    assert scope(*twice, event(0, "ATC//A10BA02", SEEN), task="heart_failure_in_diabetes") == {1: None}
    for value, reason in ((6.4, outside), (6.5, None)):
        a1c = event(0, "LOINC//4548-4", SEEN, value=value)
        assert scope(*twice, a1c, task="heart_failure_in_diabetes") == {1: reason}
    one_moment = [event(0, "ICD10CM//E11.9", "2020-01-01"), event(0, "ICD9CM//250.00", "2020-01-01"), person(0)]
    assert scope(*one_moment, event(0, "ATC//A10BA02", SEEN), task="heart_failure_in_diabetes") == {1: outside}


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"gout.*heart_failure"):
        load_task("gout")


def test_a_task_without_label_window_is_refused(tmp_path: Path) -> None:
    text = (Path(load_task("stroke").path)).read_text()
    (tmp_path / "odd.yaml").write_text(text.replace("    label: outcome\n", ""))
    with pytest.raises(ConfigError, match=r"odd\.yaml"):
        load_task("odd", tmp_path)


def test_splits_that_overlap_fail() -> None:
    good = pl.DataFrame({"subject_id": [1, 1, 2], "split": ["train", "train", "tuning"]})
    check_disjoint(good)
    for bad in (["train", "tuning", "tuning"], ["train", "train", "test"], ["train", "train", None]):
        with pytest.raises(VigilError, match="split is broken"):
            check_disjoint(good.with_columns(split=pl.Series(bad, dtype=pl.String)))


def test_splits_have_their_shares_and_hang_on_the_salt() -> None:
    found = split_all(range(10_000), "a")
    shares = {name: sum(split == name for split in found.values()) / 10_000 for name in set(found.values())}
    assert shares["train"] == pytest.approx(0.60, abs=0.02)
    assert shares["tuning"] == pytest.approx(0.15, abs=0.02)
    assert found == split_all(reversed(range(10_000)), "a")
    assert found != split_all(range(10_000), "b")
