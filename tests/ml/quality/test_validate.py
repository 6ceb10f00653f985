"""Quality over real partitions: what is set aside, what blocks, and that no value of a patient leaks."""

from __future__ import annotations

import json
import logging
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml.common.errors import NotFoundError, QualityError, RefusedError
from ml.extraction import commit_snapshot, extract, load_snapshot
from ml.extraction.log import Partition, committed_partitions, pending_partition, write_committed, write_pending
from ml.extraction.view import read_rows
from ml.quality import validate
from ml.quality.frames import VITAL, _vital
from ml.quality.suites import PARTITION, suite_of
from ml.quality.verdict import Drift, Verdict
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.quality.invented_weeks import KIND, LAST, OTHER, weeks
from tests.ml.small_hospital import BASE, PEOPLE

NEXT = BASE + timedelta(days=1)
QUARANTINE = """
select kind, expectation, severity, source_key, subject_id, code from restricted.quarantine where as_of = '2024-01-31'
order by expectation, source_key
"""
MANY_DRUGS = """
insert into ehr.drug_exposure
    (drug_exposure_id, person_id, drug_concept_id, drug_exposure_start_date, recorded_at)
select n, 3, 201, %s, %s from generate_series(1000, 1200) n
"""


@pytest.fixture
def small(vigil: Settings) -> Settings:
    hospital.build()
    return vigil


def outcomes(verdict: Verdict) -> dict[tuple[str, str], tuple[str, int]]:
    return {(r.expectation, r.subject): (r.outcome, r.at_fault) for r in verdict.results if r.outcome != "pass"}


def test_good_records_pass_and_are_committed(small: Settings) -> None:
    extract(BASE)
    verdict = validate(BASE)
    assert (verdict.passed, verdict.empty, verdict.quarantined, outcomes(verdict)) == (True, False, 0, {})
    assert {r.subject for r in verdict.results} >= {"person", "condition_occurrence", "ICD10CM", "ATC", "LOINC"}
    assert commit_snapshot(BASE).subjects == PEOPLE
    assert validate(BASE) == verdict  # a committed day keeps its verdict
    assert verdict.drift == Drift()  # a base load has nothing before it
    for result in verdict.results:
        assert result.expectation in (*PARTITION, *suite_of(result.subject).all), result


def make_bad_rows() -> None:
    """One row at fault per expectation on single rows."""
    with hospital.together():
        hospital.add("concept", concept_id=109, concept_name="x", vocabulary_id="ICD10CM", concept_code="I509")
        hospital.add_condition(901, 3, date(2024, 2, 20), recorded=BASE)  # after it was recorded
        hospital.add_condition(902, 3, date(1949, 1, 1), recorded=BASE)  # before birth
        hospital.add_condition(903, 3, BASE, 109)  # no ICD-10-CM
        hospital.add_condition(904, 3, BASE, 0)  # no code at all
        hospital.add_condition(905, 1, BASE)  # a day after death
        hospital.add("person", BASE, person_id=99, gender_concept_id=8507, year_of_birth=1850)
        hospital.add_condition(906, 99, BASE)  # good, though the birth is not
        hospital.add_lab(907, 3, BASE, float("inf"))
    hospital.run("alter table ehr.measurement drop constraint measurement_pkey")
    hospital.add_lab(4, 4, date(2024, 1, 5), 7.5)  # the same row twice


def test_rows_at_fault_are_set_aside_and_left_out_of_the_view(small: Settings) -> None:
    for n in range(1000, 1020):  # enough rows for one in a hundred to be few
        hospital.add_condition(n, 5, BASE)
    make_bad_rows()
    extract(BASE)
    verdict = validate(BASE)
    assert outcomes(verdict) == {
        ("code_present", "condition_occurrence"): ("warn", 1),
        ("code_system_icd10cm", "ICD10CM"): ("warn", 1),
        ("not_after_death", "condition_occurrence"): ("warn", 1),
        ("not_after_recorded", "condition_occurrence"): ("warn", 1),
        ("not_before_birth", "condition_occurrence"): ("warn", 1),
        ("numeric_finite", "measurement"): ("warn", 1),
        ("plausible_birth", "person"): ("warn", 1),
        ("unique_version", "measurement"): ("warn", 2),
    }
    assert hospital.ask(Role.QUALITY, QUARANTINE) == [
        ("condition_occurrence", "code_present", "warn", "condition_occurrence/904", 3, "SOURCE//"),
        ("condition_occurrence", "code_system_icd10cm", "warn", "condition_occurrence/903", 3, "ICD10CM//I509"),
        ("condition_occurrence", "not_after_death", "warn", "condition_occurrence/905", 1, "ICD10CM//I50.9"),
        ("condition_occurrence", "not_after_recorded", "warn", "condition_occurrence/901", 3, "ICD10CM//I50.9"),
        ("condition_occurrence", "not_before_birth", "warn", "condition_occurrence/902", 3, "ICD10CM//I50.9"),
        ("measurement", "numeric_finite", "warn", "measurement/907", 3, "LOINC//4548-4"),
        ("person", "plausible_birth", "warn", "person/99/birth", 99, "MEDS_BIRTH"),
        ("measurement", "unique_version", "warn", "measurement/4", 4, "LOINC//4548-4"),
    ]
    assert verdict.quarantined == 6
    keys = set(hospital.view(commit_snapshot(BASE))["source_key"])
    assert {"condition_occurrence/905", "condition_occurrence/906", "measurement/4", "person/99/gender"} <= keys
    left_out = {*(f"condition_occurrence/{n}" for n in (901, 902, 903, 904)), "measurement/907", "person/99/birth"}
    assert not left_out & keys


def test_judging_twice_gives_the_same_and_a_corrected_source_empties_the_quarantine(small: Settings) -> None:
    hospital.add_condition(901, 3, date(2024, 2, 20), recorded=BASE)
    extract(BASE)
    first = validate(BASE)
    rows = hospital.ask(Role.QUALITY, QUARANTINE)
    assert validate(BASE) == first
    assert hospital.ask(Role.QUALITY, QUARANTINE) == rows != []
    hospital.run("delete from ehr.condition_occurrence where condition_occurrence_id = 901")
    extract(BASE)
    assert validate(BASE).quarantined == 0
    assert hospital.ask(Role.QUALITY, QUARANTINE) == []


def test_a_row_is_judged_by_the_birth_known_when_it_was_recorded_whichever_night_brings_it(
    small: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hospital.add_condition(901, 3, date(2024, 1, 20), recorded=NEXT)
    hospital.add("person", NEXT, person_id=3, gender_concept_id=8532, year_of_birth=2020)  # a correction, wrong by far
    hospital.add_condition(902, 3, date(2019, 1, 20), recorded=NEXT)
    for day in (BASE, NEXT):
        extract(day)
        validate(day)
        nightly = commit_snapshot(day)
    keys = set(hospital.view(nightly)["source_key"])
    assert {"condition_occurrence/3", "condition_occurrence/901"} <= keys  # 3 was recorded before the correction
    assert "condition_occurrence/902" not in keys
    monkeypatch.setenv("VIGIL_DATA", str(tmp_path / "scratch"))
    get_settings.cache_clear()
    extract(NEXT)
    validate(NEXT)
    assert commit_snapshot(NEXT).digest == nightly.digest


BLOCKING = {
    "update ehr.condition_occurrence set condition_start_date = '2024-03-01'": (
        "not_after_recorded fails on 20 of 20 in condition_occurrence",
        "check the source's dates",
    ),
    "update ehr.concept set concept_code = replace(concept_code, '.', '')": (
        "code_system_icd10cm fails on 20 of 20 in ICD10CM",
        "diagnoses carry their dot",
    ),
    "update ehr.measurement set recorded_at = '2024-06-01'": (
        "recorded_by_as_of fails on 1 of 8 in partition",
        "every row of measurement is recorded after as_of",
    ),
    "truncate ehr.concept": ("code_present fails on 20 of 20 in condition_occurrence", "map the concept"),
    """update ehr.condition_occurrence set condition_concept_id = 0, condition_source_value = 'x';
       update ehr.drug_exposure set drug_concept_id = 0, drug_source_value = 'x';
       update ehr.measurement set measurement_concept_id = 0, measurement_source_value = 'x'""": (
        "mostly_mapped fails on 60 of 60 in partition",
        "extend the concept table",
    ),
}


@pytest.mark.parametrize("statement", list(BLOCKING))
def test_a_source_at_fault_blocks_with_cause_and_remedy_and_nothing_is_committed(
    small: Settings, statement: str
) -> None:
    hospital.run(statement)
    extract(BASE)
    cause, remedy = BLOCKING[statement]
    with pytest.raises(QualityError) as caught:
        validate(BASE)
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)
    with pytest.raises(RefusedError, match="quality blocked"):
        commit_snapshot(BASE)
    with pytest.raises(NotFoundError):
        load_snapshot(BASE)


def test_rows_that_cannot_be_placed_warn_if_few_and_block_if_many(small: Settings) -> None:
    hospital.run("alter table ehr.drug_exposure drop constraint drug_exposure_pkey, alter person_id drop not null")
    hospital.run("update ehr.drug_exposure set person_id = null where drug_exposure_id = 3")
    extract(BASE)
    with pytest.raises(QualityError, match="mostly_placed"):
        validate(BASE)
    hospital.run(MANY_DRUGS, BASE, BASE)
    extract(BASE)
    assert outcomes(validate(BASE)) == {("rows_placed", "drug_exposure"): ("warn", 1)}


def test_unmapped_codes_warn_by_kind(small: Settings) -> None:
    hospital.run("update ehr.measurement set measurement_concept_id = 0, measurement_source_value = 'local'")
    extract(BASE)
    assert outcomes(validate(BASE)) == {("unmapped_codes", "measurement"): ("warn", PEOPLE)}


def test_an_unusual_volume_warns(small: Settings) -> None:
    extract(BASE)
    validate(BASE)
    commit_snapshot(BASE)
    hospital.run(MANY_DRUGS, NEXT, NEXT)
    extract(NEXT)
    assert outcomes(validate(NEXT)) == {("volume", "partition"): ("warn", 201)}


def test_an_empty_night_after_full_ones_passes_and_warns(vigil: Settings) -> None:
    for night in weeks(nights=15)[:-1]:
        write_committed(night)
    write_pending(Partition(LAST, LAST, LAST, {}, "kept", 1, "a", rows={KIND: 0, OTHER: 0}))
    verdict = validate(LAST)
    assert (verdict.passed, verdict.empty) == (True, True)
    assert set(outcomes(verdict)) == {
        ("volume", "partition"),
        *((name, kind) for name in ("volume_of_kind", "kind_present") for kind in (KIND, OTHER)),
    }


def test_births_and_deaths_read_at_once_are_those_read_shard_by_shard(small: Settings) -> None:
    hospital.add("person", BASE, person_id=99, gender_concept_id=8507, year_of_birth=1850)  # set aside
    hospital.add("death", recorded=NEXT, person_id=2, death_date=BASE)
    hospital.add("person", NEXT, person_id=3, gender_concept_id=8532, year_of_birth=1951)
    for day in (BASE, NEXT):
        extract(day)
        validate(day)
        commit_snapshot(day)
    log, shards = committed_partitions(), range(small.shards)
    whole = pl.concat([read_rows(log, NEXT, shard, VITAL, vital=True) for shard in shards])
    order = ["subject_id", "recorded_at", "source_key"]
    for wanted in (whole["subject_id"].unique(), pl.Series("subject_id", [1, 2, 3, 99]), whole["subject_id"].clear()):
        found = _vital(log, list(shards), NEXT, wanted)
        assert found.sort(order).equals(whole.filter(pl.col("subject_id").is_in(wanted.to_list())).sort(order))
    assert 99 not in whole.filter(code="MEDS_BIRTH")["subject_id"]


def test_an_empty_night_passes_and_says_so(small: Settings, caplog: pytest.LogCaptureFixture) -> None:
    extract(BASE)
    validate(BASE)
    commit_snapshot(BASE)
    extract(NEXT)
    with caplog.at_level(logging.INFO):
        verdict = validate(NEXT)
    assert (verdict.passed, verdict.empty) == (True, True)
    assert "is empty" in caplog.text
    assert commit_snapshot(NEXT).as_of == NEXT


def test_a_day_without_a_pending_partition_is_refused(small: Settings) -> None:
    with pytest.raises(NotFoundError, match="no pending partition"):
        validate(BASE)


def test_neither_verdict_nor_log_nor_error_holds_a_value_of_a_patient(
    small: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = 8_675_309
    with hospital.together():
        hospital.add("person", BASE, person_id=canary, gender_concept_id=8507, year_of_birth=1960)
        for n in range(40):
            hospital.add_condition(canary * 100 + n, canary, date(2031, 7, 13), recorded=BASE)
    with caplog.at_level(logging.DEBUG):
        extract(BASE)
        with pytest.raises(QualityError) as caught:
            validate(BASE)
    partition = pending_partition(BASE)
    assert partition is not None
    verdict = (partition.path / "verdict.json").read_text()
    written = capfd.readouterr()
    for place in (caplog.text, str(caught.value), verdict, written.out, written.err):
        assert str(canary) not in place
        assert "2031" not in place
    assert json.loads(verdict)["passed"] is False
    rows = hospital.ask(Role.QUALITY, "select count(*), min(event_time) from restricted.quarantine")
    assert rows == [(40, datetime(2031, 7, 13))]
