"""MIMIC-IV's hosp tables: what becomes of a row of each, in both versions of ICD."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from ml.settings import Settings, get_settings
from ml.sources.loading import mimic_iv
from ml.sources.loading.load import load
from tests.ml import small_hospital as hospital
from tests.ml.sources.source_rows import Event, codes, events, plan

FILES = {
    "patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n1,F,60,2150,2014 - 2016,2152-03-01\n",
    "admissions": "subject_id,hadm_id,admittime,dischtime,admission_type,race\n"
    "1,10,2150-05-01 10:00:00,2150-05-04 12:00:00,EW EMER.,WHITE\n"
    "1,11,2151-05-01 10:00:00,2151-05-02 12:00:00,EU OBSERVATION,\n",
    "diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    "1,10,1,4280,9\n1,10,2,E8498,9\n1,10,3,V5867,9\n1,10,4,496,9\n"
    "1,11,1,I509,10\n1,11,2,I10,10\n1,11,3,S72001A,10\n1,11,4,X,11\n",
    "procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n"
    "1,10,1,2150-05-02,3995,9\n1,10,2,,66,9\n1,11,1,2151-05-01,5A1D70Z,10\n",
    "prescriptions": "subject_id,hadm_id,starttime,drug,ndc\n"
    "1,10,2150-05-01 12:00:00,Metformin,00093104801\n1,10,2150-05-01 12:00:00,Metformin,00093104801\n"
    "1,10,2150-05-01 13:00:00,Saline,0\n1,10,2150-05-01 14:00:00,Water,\n1,10,,Never started,1\n",
    "labevents": "labevent_id,subject_id,hadm_id,itemid,charttime,storetime,valuenum,value\n"
    "1,1,10,50852,2150-05-01 11:00:00,2150-05-01 15:00:00,6.5,6.5\n2,1,,51222,2150-06-01 08:00:00,,,high\n"
    "3,1,10,99999,2150-05-01 11:00:00,,1e300,1e300\n",
    "d_labitems": "itemid,label,loinc_code\n50852,HbA1c,4548-4\n51222,Hemoglobin,\n",
}


def read_mimic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_SOURCE", "mimic_iv")
    get_settings.cache_clear()


@pytest.fixture
def mimic(vigil: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.csv").write_text(text)
    load(mimic_iv.LOADER, tmp_path)
    read_mimic(monkeypatch)


def by_key(kind: str) -> dict[str, Event]:
    return {row.source_key: row for row in events(kind)}


DISCHARGE = datetime(2015, 5, 4, 12)


def test_diagnoses_of_both_versions_have_their_dot_and_are_known_at_discharge(mimic: None) -> None:
    assert codes("diagnoses_icd") == {
        "diagnoses_icd/10-1": "ICD9CM//428.0",
        "diagnoses_icd/10-2": "ICD9CM//E849.8",
        "diagnoses_icd/10-3": "ICD9CM//V58.67",
        "diagnoses_icd/10-4": "ICD9CM//496",
        "diagnoses_icd/11-1": "ICD10CM//I50.9",
        "diagnoses_icd/11-2": "ICD10CM//I10",
        "diagnoses_icd/11-3": "ICD10CM//S72.001A",
        "diagnoses_icd/11-4": "SOURCE//X",
    }
    row = by_key("diagnoses_icd")["diagnoses_icd/10-1"]
    assert (row.time, row.recorded_at, row.visit_id, row.removed) == (DISCHARGE, DISCHARGE, 10, False)


def test_procedures_of_both_versions_are_timed_at_their_day_else_at_discharge(mimic: None) -> None:
    rows = by_key("procedures_icd")
    assert {key: (row.code, row.time) for key, row in rows.items()} == {
        "procedures_icd/10-1": ("ICD9Proc//39.95", datetime(2015, 5, 2)),
        "procedures_icd/10-2": ("ICD9Proc//66", DISCHARGE),
        "procedures_icd/11-1": ("ICD10PCS//5A1D70Z", datetime(2016, 4, 30)),
    }
    assert rows["procedures_icd/10-1"].recorded_at == DISCHARGE


def test_prescriptions_are_coded_by_ndc_else_by_name_once_per_order(mimic: None) -> None:
    rows = events("prescriptions")
    assert sorted(row.code for row in rows) == ["NDC//00093104801", "SOURCE//Saline", "SOURCE//Water"]
    assert {row.recorded_at for row in rows} == {DISCHARGE}
    assert len({row.source_key for row in rows}) == 3


def test_laboratory_results_are_coded_by_loinc_else_by_item_and_known_when_stored(mimic: None) -> None:
    rows = by_key("labevents")
    first, second, third = (rows[f"labevents/{n}"] for n in (1, 2, 3))
    assert (first.code, first.numeric_value, first.text_value) == ("LOINC//4548-4", 6.5, None)
    assert first.recorded_at == datetime(2015, 5, 1, 15)
    assert (second.code, second.numeric_value, second.text_value) == ("SOURCE//LAB/51222", None, "high")
    assert (second.recorded_at, second.visit_id) == (datetime(2015, 6, 1, 23, 59, 59, 999999), None)
    assert (third.code, third.numeric_value) == ("SOURCE//LAB/99999", float("inf"))


def test_people_admissions_and_deaths(mimic: None) -> None:
    assert codes("patients") == {"patients/1/birth": "MEDS_BIRTH", "patients/1/gender": "GENDER//F"}
    assert by_key("patients")["patients/1/birth"].time == datetime(1955, 1, 1)
    assert codes("admissions") == {
        "admissions/10": "VISIT//emergency_inpatient",
        "admissions/10/end": "VISIT_END//emergency_inpatient",
        "admissions/11": "VISIT//observation",
        "admissions/11/end": "VISIT_END//observation",
        "patients/1/race": "RACE//WHITE",
    }
    assert [(row.code, row.time.date().isoformat()) for row in events("deaths")] == [("MEDS_DEATH", "2017-03-01")]


def test_tables_beyond_the_first_three_may_be_absent(mimic: None) -> None:
    hospital.run("drop table ehr.procedures_icd, ehr.prescriptions, ehr.labevents, ehr.d_labitems")
    assert [events(kind) for kind in ("procedures_icd", "prescriptions", "labevents")] == [[], [], []]
    assert len(codes("diagnoses_icd")) == 8
    assert plan().unindexed == ()


def test_the_mimic_demo_gives_one_event_per_diagnosis_in_the_version_it_was_coded_in(
    vigil: Settings, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(mimic_iv.LOADER, records / "mimic-iv-demo" / "hosp")
    read_mimic(monkeypatch)
    versions = [code.split("//")[0] for code in codes("diagnoses_icd").values()]
    assert (versions.count("ICD9CM"), versions.count("ICD10CM"), len(versions)) == (2_193, 2_313, 4_506)
