"""Loading CSV exports: all or nothing, once, and every row set aside with its reason."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ml.common.errors import RefusedError, SourceError
from ml.settings import Role, Settings, get_settings
from ml.sources.commands import app
from ml.sources.loading import diabetes130, mimic_iv, omop
from ml.sources.loading.load import load
from tests.ml import small_hospital as hospital

PERSON = """PERSON_ID,GENDER_CONCEPT_ID,YEAR_OF_BIRTH,"date(birth_datetime,'unixepoch')",colour
1,8532,1950,1950-03-04,blue
2,8507,1960,,
two,8507,1960,,
3,8507,,,
1,8507,1961,,
4,8507
"""
VISIT = """visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date
10,1,9201,2020-01-01,2020-01-05
11,9,9201,2020-01-01,2020-01-05
"""
CONDITION = """condition_occurrence_id,person_id,condition_concept_id,condition_start_date,visit_occurrence_id,\
condition_source_value
100,1,0,2020-01-02,10,I50.9
101,2,0,2020-01-02,77,"a, b"
102,9,0,2020-01-02,,x
103,1,0,2020-13-02,,x
"""
REJECTED = "select file, line, reason, raw from ehr.rejected_rows order by file, line"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "PERSON.csv").write_text(PERSON)
    (folder / "visit_occurrence.csv").write_text(VISIT)
    (folder / "condition_occurrence.csv").write_text(CONDITION)
    (folder / "note.csv").write_text("a\n1\n")
    return folder


def test_good_rows_are_loaded_and_the_others_set_aside_with_the_reason(vigil: Settings, export: Path) -> None:
    report = load(omop.LOADER, export)
    assert report.rows["person"] == 2
    assert report.rows["condition_occurrence"] == 2
    assert [tuple(row) for row in hospital.ask(Role.LOAD, REJECTED)] == [
        ("PERSON.csv", 4, "person_id is no bigint", "two,8507,1960,,"),
        ("PERSON.csv", 5, "no year_of_birth", "3,8507,,,"),
        ("PERSON.csv", 6, "person_id occurs before", "1,8507,1961,,"),
        ("PERSON.csv", 7, "2 fields instead of 5", "4,8507"),
        ("condition_occurrence.csv", 4, "unknown person", "102,9,0,2020-01-02,,x"),
        ("condition_occurrence.csv", 5, "condition_start_date is no date", "103,1,0,2020-13-02,,x"),
        ("visit_occurrence.csv", 3, "unknown person", "11,9,9201,2020-01-01,2020-01-05"),
    ]
    person = next(file for file in report.files if file["table"] == "person")
    assert (person["read"], person["loaded"], person["ignored_columns"]) == (6, 2, ["colour"])
    assert any("1 rows name a visit that does not exist" in note for note in report.notes)
    assert any("note" in note for note in report.notes)


def test_loaded_rows_are_known_when_the_visit_ends(vigil: Settings, export: Path) -> None:
    assert load(omop.LOADER, export).history == "assumed"
    rows = hospital.ask(
        Role.EXTRACT,
        "select condition_occurrence_id, visit_occurrence_id, recorded_at from ehr.condition_occurrence order by 1",
    )
    assert rows == [
        (100, 10, datetime(2020, 1, 5, 23, 59, 59, 999999)),
        (101, None, datetime(2020, 1, 2, 23, 59, 59, 999999)),
    ]


def test_the_same_files_are_loaded_once_and_others_only_when_told_to_replace(vigil: Settings, export: Path) -> None:
    first = load(omop.LOADER, export)
    again = load(omop.LOADER, export)
    assert again.already
    assert (again.rows, again.files) == (first.rows, first.files)
    (export / "visit_occurrence.csv").write_text(VISIT.replace("9201", "9202"))
    with pytest.raises(RefusedError, match="holds other records"):
        load(omop.LOADER, export)
    assert hospital.ask(Role.LOAD, "select visit_concept_id from ehr.visit_occurrence") == [(9201,)]
    assert not load(omop.LOADER, export, replace=True).already
    assert hospital.ask(Role.LOAD, "select visit_concept_id from ehr.visit_occurrence") == [(9202,)]
    assert hospital.ask(Role.LOAD, "select count(*) from ehr.rejected_rows") == [(7,)]


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("drug_exposure.csv", b"drug_exposure_id,person_id\n1,\xff\n", r"drug_exposure.csv is not UTF-8 \(byte 29 of"),
        ("death.csv", b"person_id,colour\n1,blue\n", "death.csv has no column death_date"),
        ("person.csv.gz", b"x", "are the same table"),
    ],
)
def test_a_bad_file_leaves_what_was_loaded_before(
    vigil: Settings, export: Path, name: str, content: bytes, cause: str
) -> None:
    load(omop.LOADER, export)
    (export / name).write_bytes(content)
    with pytest.raises(SourceError, match=cause):
        load(omop.LOADER, export, replace=True)
    assert hospital.ask(Role.LOAD, "select count(*) from ehr.person") == [(2,)]


def test_an_export_without_its_people_or_a_folder_that_is_none_is_refused(vigil: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no person\.csv"):
        load(omop.LOADER, tmp_path)
    with pytest.raises(SourceError, match="is not a directory"):
        load(omop.LOADER, tmp_path / "nowhere")


def test_an_export_with_history_keeps_it(vigil: Settings, tmp_path: Path) -> None:
    (tmp_path / "person.csv").write_text(
        "person_id,gender_concept_id,year_of_birth,recorded_at,removed\n"
        "1,8532,1950,2020-01-01 10:00:00,f\n1,8507,1950,2020-02-01 10:00:00,f\n2,8507,1950,,f\n"
    )
    report = load(omop.LOADER, tmp_path)
    assert (report.history, report.rows["person"]) == ("kept", 2)
    assert hospital.ask(Role.LOAD, "select reason from ehr.rejected_rows") == [("no recorded_at",)]


def test_set_aside_rows_are_for_the_loader_alone(vigil: Settings, export: Path) -> None:
    load(omop.LOADER, export)
    assert hospital.ask(Role.EXTRACT, "select has_table_privilege('ehr.rejected_rows', 'select')") == [(False,)]
    assert hospital.ask(Role.EXTRACT, "select has_table_privilege('ehr.person', 'select')") == [(True,)]


def test_the_command_prints_its_report_as_json(vigil: Settings, export: Path) -> None:
    done = CliRunner().invoke(app, ["omop", str(export), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["rows"]["person"] == 2
    table = CliRunner().invoke(app, ["omop", str(export)], catch_exceptions=False)
    assert "loaded already" in table.stdout


MIMIC = {
    "patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
    "1,F,60,2180,2014 - 2016,2181-03-01\n2,M,50,2120,unknown,\n",
    "admissions": "subject_id,hadm_id,admittime,dischtime,admission_type,race\n"
    "1,10,2180-02-27 10:00:00,2180-03-02 12:00:00,URGENT,WHITE\n"
    "1,11,2180-12-31 10:00:00,2181-01-02 12:00:00,EW EMER.,WHITE\n",
    "diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    "1,10,1,5723,9\n1,10,2,E8498,9\n1,10,3,V5867,9\n1,11,1,I509,10\n1,11,2,I10,10\n1,99,1,I10,10\n",
    "prescriptions": "subject_id,hadm_id,starttime,drug,ndc\n1,10,2180-02-28 08:00:00,Metformin,00093104801\n"
    "1,10,2180-02-28 08:00:00,Metformin,00093104801\n1,10,2180-02-28 09:00:00,Saline,0\n",
    "labevents": "labevent_id,subject_id,hadm_id,itemid,charttime,storetime,valuenum,value\n"
    "1,1,10,50852,2180-02-28 08:00:00,2180-02-28 11:00:00,6.5,6.5\n2,1,,51222,2180-02-28 08:00:00,,,high\n",
    "d_labitems": "itemid,label,loinc_code\n50852,HbA1c,4548-4\n51222,Hemoglobin,\n",
    "procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n1,10,1,2180-02-28,3995,9\n",
}


def test_mimic_is_shifted_by_whole_days_and_read_with_dots_at_discharge(
    vigil: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in MIMIC.items():
        (tmp_path / f"{name}.csv").write_text(text)
    report = load(mimic_iv.LOADER, tmp_path)
    assert hospital.ask(Role.LOAD, REJECTED.replace(", raw", "")) == [
        ("diagnoses_icd.csv", 7, "unknown visit"),
        ("patients.csv", 3, "anchor_year_group has another form"),
    ]
    assert report.history == "assumed"
    # 2180 is a leap year and 2015 is not: the interval of the first admission stays, its dates do not
    stays = hospital.ask(Role.LOAD, "select admittime, dischtime from ehr.admissions order by hadm_id")
    assert stays == [
        (datetime(2015, 2, 27, 10), datetime(2015, 3, 3, 12)),
        (datetime(2016, 1, 1, 10), datetime(2016, 1, 3, 12)),
    ]
    monkeypatch.setenv("VIGIL_SOURCE", "mimic_iv")
    get_settings.cache_clear()
    view = hospital.view(hospital.night(date(2020, 1, 1)))
    assert set(view["code"]) == {
        *("MEDS_BIRTH", "MEDS_DEATH", "GENDER//F", "RACE//WHITE", "VISIT//inpatient", "VISIT//emergency_inpatient"),
        *("ICD9CM//572.3", "ICD9CM//E849.8", "ICD9CM//V58.67", "ICD10CM//I50.9", "ICD10CM//I10", "ICD9Proc//39.95"),
        *("NDC//00093104801", "SOURCE//Saline", "LOINC//4548-4", "SOURCE//LAB/51222"),
        *("VISIT_END//inpatient", "VISIT_END//emergency_inpatient"),
    }
    times = dict(view.select("code", "time").iter_rows())
    assert times["ICD9CM//572.3"] == datetime(2015, 3, 3, 12)
    assert times["MEDS_BIRTH"] == datetime(1955, 1, 1)
    assert view.filter(view["code"] == "NDC//00093104801").height == 1


def test_diabetes130_is_dated_by_the_order_of_encounters(vigil: Settings, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text(
        "patient_id,sex,race,age_band_first\n1,Female,Caucasian,[70-80)\n2,Male,?,[40-50)\n"
    )
    head = "visit_id,patient_id,visit_index,age,discharge_disposition_id,time_in_hospital\n"
    (tmp_path / "visits.csv").write_text(head + "500,1,1,[70-80),11,3\n100,2,0,[40-50),1,2\n300,1,0,[60-70),1,4\n")
    (tmp_path / "diagnoses.csv").write_text(
        "patient_id,visit_id,visit_index,seq,code,code_system,raw\n1,300,0,1,25083,ICD9CM,250.83\n1,500,1,1,E9320,ICD9CM,\n2,100,0,1,V57,ICD9CM,\n"
    )
    (tmp_path / "medications.csv").write_text(
        "patient_id,visit_id,drug,status\n1,300,metformin,Steady\n1,300,citoglipton,Steady\n"
    )
    report = load(diabetes130.LOADER, tmp_path)
    assert any("rank of its id" in note for note in report.notes)
    visits = hospital.ask(
        Role.LOAD, "select visit_occurrence_id, visit_start_date from ehr.visit_occurrence order by 1"
    )
    assert visits == [(100, date(1999, 1, 1)), (300, date(2002, 5, 2)), (500, date(2005, 9, 1))]
    view = hospital.view(hospital.night(date(2009, 1, 31)))
    rows = {code: (time, recorded) for code, time, recorded in view.select("code", "time", "recorded_at").iter_rows()}
    assert {"ICD9CM//250.83", "ICD9CM//E932.0", "ICD9CM//V57", "ATC//A10BA02", "DRUG//citoglipton"} <= set(rows)
    assert rows["ICD9CM//250.83"] == (datetime(2002, 5, 2), datetime(2002, 5, 6, 23, 59, 59, 999999))
    assert rows["MEDS_DEATH"][0] == datetime(2005, 9, 4)
    births = dict(view.filter(view["code"] == "MEDS_BIRTH").select("subject_id", "time").iter_rows())
    assert births == {1: datetime(1937, 1, 1), 2: datetime(1954, 1, 1)}
    assert "not real" in hospital.ask(Role.EXTRACT, "select source_description from ehr.cdm_source")[0][0]


def test_the_gibleed_export_loads_whole(vigil: Settings, records: Path) -> None:
    report = load(omop.LOADER, records / "gibleed-omop")
    assert report.rows["person"] == 2_694
    assert report.rows["condition_occurrence"] == 65_332
    conditions = next(file for file in report.files if file["table"] == "condition_occurrence")
    assert (conditions["without_visit"], conditions["rejected"]) == (64_717, {})  # 64 more name no visit at all
    none = hospital.ask(Role.LOAD, "select count(*) from ehr.condition_occurrence where visit_occurrence_id is null")
    assert none == [(64_781,)]
    periods = next(file for file in report.files if file["table"] == "observation_period")
    assert periods["rejected"] == {"unknown person": 2_649}


def test_the_mimic_demo_loads_whole_into_its_anchor_years(vigil: Settings, records: Path) -> None:
    report = load(mimic_iv.LOADER, records / "mimic-iv-demo" / "hosp")
    assert {table: rows for table, rows in report.rows.items() if rows} == {
        "patients": 100,
        "admissions": 275,
        "diagnoses_icd": 4_506,
    }
    span = hospital.ask(
        Role.LOAD, "select min(admittime) >= '2000-01-01', max(dischtime) < '2025-01-01' from ehr.admissions"
    )
    assert span == [(True, True)]


def test_the_130_hospitals_load_whole(vigil: Settings, records: Path) -> None:
    report = load(diabetes130.LOADER, records / "diabetes130")
    assert {table: rows for table, rows in report.rows.items() if rows and table not in ("concept", "cdm_source")} == {
        "person": 71_518,
        "visit_occurrence": 101_766,
        "condition_occurrence": 303_496,
        "drug_exposure": 120_054,
        "death": 1_652,
    }
    # What the data say of readmission must agree with the dates made for them.
    gaps = """
        select visit_occurrence_id,
            lead(visit_start_date) over (partition by person_id order by visit_occurrence_id) - visit_end_date
        from ehr.visit_occurrence
    """
    made = pl.DataFrame(hospital.ask(Role.LOAD, gaps), schema=["visit_id", "gap"], orient="row")
    said = pl.read_csv(records / "diabetes130" / "visits.csv.gz", columns=["visit_id", "readmitted"])
    medians = dict(said.join(made, on="visit_id").group_by("readmitted").agg(pl.col("gap").median()).iter_rows())
    assert medians["<30"] <= 30 < medians[">30"]
