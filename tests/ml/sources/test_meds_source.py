"""MEDS datasets as a source: other names, other codes, no second clock; and an export of Vigil comes back as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ml.common.errors import ConfigError, RefusedError, SourceError
from ml.extraction import Snapshot
from ml.settings import Role, Settings, get_settings
from ml.sources.commands import app
from ml.sources.loading.load import LoadReport, load
from ml.sources.loading.meds import loader
from ml.sources.loading.meds_codes import normalise
from tests.ml import small_hospital as hospital
from tests.ml.sources.source_rows import Event, events

AS_OF = date(2024, 1, 1)
REJECTED = "select file, line, reason from ehr.rejected_rows order by file, line"


def write(folder: Path, rows: Mapping[str, list[Any]] | pl.DataFrame, name: str = "data/train/0.parquet") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)).write_parquet(path)


def load_meds(folder: Path, columns: Mapping[str, str] | None = None, **more: Any) -> LoadReport:
    shift = more.pop("shift_days", 0)
    return load(loader(columns or {}, shift), folder, **more)


@pytest.fixture
def meds(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("VIGIL_SOURCE", "meds")
    get_settings.cache_clear()
    return get_settings()


def day(text: str) -> datetime:
    return datetime.fromisoformat(text)


def end(text: str) -> datetime:
    return day(text) + timedelta(days=1) - timedelta(microseconds=1)


STANDARD = {
    "subject_id": [1, 1, 1, 1, 2, 2],
    "time": [None, day("1950-03-01"), day("2020-05-01T10:00"), day("2020-06-01"), day("1960-01-01"), None],
    "code": ["GENDER//F", "MEDS_BIRTH", "ICD10CM//I50.9", "LOINC//4548-4", "MEDS_BIRTH", "GENDER//M"],
    "numeric_value": pl.Series([None, None, None, 6.5, None, None], dtype=pl.Float32),
    "text_value": [None, None, None, "", None, None],
}


def test_a_standard_dataset_is_known_at_the_end_of_each_events_day(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, STANDARD)
    write(tmp_path, {"subject_id": [1, 2], "split": ["train", "held_out"]}, "metadata/subject_splits.parquet")
    report = load_meds(tmp_path)
    assert (report.history, report.rows) == ("assumed", {"meds_events": 6, "meds_codes": 0})
    known = {(row.subject_id, row.code): row for row in events("events")}
    assert known[1, "ICD10CM//I50.9"].recorded_at == end("2020-05-01")
    assert (known[1, "LOINC//4548-4"].numeric_value, known[1, "LOINC//4548-4"].text_value) == (6.5, "")
    # nobody is known before the records speak of him: not at birth, and not before the first event that has a time
    assert known[1, "MEDS_BIRTH"].recorded_at == known[1, "GENDER//F"].recorded_at == end("2020-05-01")
    assert known[1, "MEDS_BIRTH"].time == day("1950-03-01")
    assert known[2, "MEDS_BIRTH"].recorded_at == known[2, "GENDER//M"].recorded_at == end("1960-01-01")


def test_who_has_no_time_at_all_is_known_on_the_datasets_last_day(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, {"subject_id": [1, 2], "time": [day("2020-05-01"), None], "code": ["A//1", "GENDER//F"]})
    load_meds(tmp_path)
    assert [row.recorded_at for row in events("events")] == [end("2020-05-01")] * 2


def test_keys_say_what_the_row_says_and_repeated_rows_are_numbered(meds: Settings, tmp_path: Path) -> None:
    rows = {"subject_id": [1, 1, 1], "time": [day("2020-05-01")] * 3, "code": ["A//1"] * 3, "value": ["1", "1", "x"]}
    write(tmp_path, rows)
    load_meds(tmp_path)
    first = {row.source_key: row for row in events("events")}
    assert len(first) == 3
    one, two = sorted(key for key, row in first.items() if row.numeric_value == 1)
    assert two == f"{one}/2"
    # the same dataset made again, in another order and with more rows: the old rows keep their keys
    more = pl.DataFrame(rows).reverse().vstack(pl.DataFrame({**rows, "subject_id": [3, 4, 5]}))
    write(tmp_path, more)
    load_meds(tmp_path, replace=True)
    second = {row.source_key: row for row in events("events")}
    assert {key: second[key] for key in first} == first
    assert len(second) == 6


def test_other_names_are_found_or_told(meds: Settings, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pid": [1, 2],
            "timestamp": ["2020-05-01 10:00:00", "2020-05-02"],
            "code": ["A//1", "A//1"],
            "value": ["6.5", "high"],
            "hadm_id": [10.0, None],
            "table": ["x", "x"],
        },
    )
    with pytest.raises(SourceError, match="no column subject_id") as caught:
        load_meds(tmp_path)
    assert "--column" in caught.value.remedy
    report = load_meds(tmp_path, {"pid": "subject_id"})
    assert [file["ignored_columns"] for file in report.files] == [["table"]]
    assert "column value is read as numeric_value or text_value" in report.notes
    assert "column hadm_id is read as visit_id" in report.notes
    rows = {row.subject_id: row for row in events("events")}
    assert (rows[1].numeric_value, rows[1].text_value, rows[1].visit_id) == (6.5, None, 10)
    assert (rows[2].numeric_value, rows[2].text_value, rows[2].visit_id) == (None, "high", None)
    assert rows[1].time == day("2020-05-01T10:00")


def test_a_column_that_is_not_there_or_not_ours_is_refused(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, STANDARD)
    for wrong in ({"pid": "subject_id"}, {"code": "colour"}):
        with pytest.raises(SourceError, match="--column names"):
            load_meds(tmp_path, wrong)
    with pytest.raises(ConfigError, match="THEIRS=OURS"):
        CliRunner().invoke(app, ["meds", str(tmp_path), "--column", "pid"], catch_exceptions=False)


def test_rows_at_fault_are_set_aside_with_file_line_and_reason(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, {"subject_id": ["1", "2"], "time": [day("2020-05-01")] * 2, "code": ["A//1", ""]}, "data/0.parquet")
    write(
        tmp_path,
        {
            "subject_id": ["x", None, "3", "4"],
            "time": [day("2020-05-01"), day("2020-05-01"), day("2020-05-01"), datetime(1, 1, 1)],
            "code": ["A//1", "A//1", "A\x00", "A//1"],
        },
        "data/1.parquet",
    )
    report = load_meds(tmp_path, shift_days=-1)
    assert [tuple(row) for row in hospital.ask(Role.LOAD, REJECTED)] == [
        ("data/0.parquet", 2, "no code"),
        ("data/1.parquet", 1, "subject_id is no bigint"),
        ("data/1.parquet", 2, "no subject_id"),
        ("data/1.parquet", 3, "code holds a NUL byte"),
        ("data/1.parquet", 4, "time lies outside all calendars"),
    ]
    assert report.rows["meds_events"] == 1
    assert hospital.ask(Role.EXTRACT, "select has_table_privilege('ehr.rejected_rows', 'select')") == [(False,)]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({}, r"holds no data/\*\.parquet"),
        ({"data/0.parquet": b"nothing"}, "is not a whole Parquet file"),
    ],
)
def test_what_is_no_dataset_is_refused(meds: Settings, tmp_path: Path, files: dict[str, bytes], cause: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=cause):
        load_meds(tmp_path)


def test_files_of_different_columns_are_refused_and_nothing_is_loaded(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, STANDARD, "data/0.parquet")
    late = pl.DataFrame(STANDARD).with_columns(recorded_at=pl.lit(datetime(2020, 1, 1)))
    write(tmp_path, late, "data/1.parquet")
    with pytest.raises(SourceError, match=r"data/0\.parquet has other columns"):
        load_meds(tmp_path)
    assert hospital.ask(Role.LOAD, "select to_regclass('ehr.meds_events')") == [(None,)]


def test_a_file_without_values_may_leave_their_columns_out(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, {**STANDARD, "numeric_value": [1.5] * len(STANDARD["code"])}, "data/0.parquet")
    write(tmp_path, {name: STANDARD[name] for name in ("subject_id", "time", "code")}, "data/1.parquet")
    count = len(STANDARD["code"])
    assert [file["loaded"] for file in load_meds(tmp_path).files] == [count, count]
    values = hospital.ask(Role.LOAD, "select count(*), count(numeric_value) from ehr.meds_events")
    assert values == [(2 * count, count)]


def test_the_same_dataset_is_loaded_once_and_with_other_options_only_when_told_to(
    meds: Settings, tmp_path: Path
) -> None:
    write(tmp_path, STANDARD)
    assert not load_meds(tmp_path).already
    assert load_meds(tmp_path).already
    with pytest.raises(RefusedError, match="holds other records"):
        load_meds(tmp_path, shift_days=-10)
    assert not load_meds(tmp_path, shift_days=-10, replace=True).already
    shifted = {row.code: row for row in events("events")}
    assert shifted["ICD10CM//I50.9"].time == day("2020-04-21T10:00")
    assert shifted["ICD10CM//I50.9"].recorded_at == end("2020-04-21")


def test_events_in_the_future_are_told_of_with_the_shift_that_helps(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, {"subject_id": [1, 1], "time": [day("2020-05-01"), day("2180-05-01")], "code": ["A//1", "A//2"]})
    note = next(note for note in load_meds(tmp_path).notes if "future" in note)
    assert note.startswith("1 events lie in the future")
    shift = int(note.split()[-1])
    assert not any("future" in note for note in load_meds(tmp_path, shift_days=shift, replace=True).notes)
    newest = max(row.recorded_at for row in events("events"))
    assert newest.date() == datetime.now(UTC).date() - timedelta(days=1)


def test_code_metadata_is_kept_with_codes_in_vigils_form(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, STANDARD)
    write(
        tmp_path,
        {
            "code": ["ICD10CM/I509", "ICD10CM//I50.9", "A//1", None],
            "description": [None, "heart failure", "a", "x"],
            "parent_codes": [None, ["ICD10CM/I50"], [], None],
        },
        "metadata/codes.parquet",
    )
    assert load_meds(tmp_path).rows["meds_codes"] == 2
    assert hospital.ask(Role.EXTRACT, "select * from ehr.meds_codes order by code") == [
        ("A//1", "a", None),
        ("ICD10CM//I50.9", "heart failure", ["ICD10CM//I50"]),
    ]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ICD9CM//4280", "ICD9CM//428.0"),
        ("ICD9CM/428.0", "ICD9CM//428.0"),
        ("ICD-9-CM:E8498", "ICD9CM//E849.8"),
        ("ICD10CM//I509", "ICD10CM//I50.9"),
        ("ICD10CM//i10", "ICD10CM//I10"),
        ("ICD10//I50.9", "ICD10//I50.9"),
        ("DIAGNOSIS//ICD//9//4280", "ICD9CM//428.0"),
        ("DIAGNOSIS//ICD//10//I509", "ICD10CM//I50.9"),
        ("PROCEDURE//ICD//9//3995", "ICD9Proc//39.95"),
        ("PROCEDURE//ICD//10//5A1D70Z", "ICD10PCS//5A1D70Z"),
        ("ICD9Proc/3995", "ICD9Proc//39.95"),
        ("SNOMED/44054006", "SNOMED//44054006"),
        ("RXNORM//213469", "RxNorm//213469"),
        ("Gender/F", "GENDER//F"),
        ("SEX//Male", "GENDER//M"),
        ("GENDER//unknown", "GENDER//unknown"),
        ("MEDS_BIRTH", "MEDS_BIRTH"),
        ("MEDS_DEATH//HOSPITAL", "MEDS_DEATH"),
        ("LAB//51087//UNK", "LAB//51087//UNK"),
        ("Blood Pressure", "SOURCE//Blood Pressure"),
        ("BMI (kg/m2)", "SOURCE//BMI (kg/m2)"),
        ("SOURCE//x", "SOURCE//x"),
    ],
)
def test_codes_are_written_as_vigil_writes_them(theirs: str, ours: str) -> None:
    assert normalise(theirs) == ours
    assert normalise(ours) == ours


prefixes = st.sampled_from(["ICD9CM", "icd10cm", "ICD9Proc", "Gender", "SNOMED", "LAB", "DIAGNOSIS//ICD//9", "", "/"])


@given(prefixes, st.sampled_from(["//", "/", ":", ""]), st.text(max_size=8))
def test_a_code_in_vigils_form_stays_as_it_is(prefix: str, between: str, rest: str) -> None:
    once = normalise(prefix + between + rest)
    assert normalise(once) == once


def export(snapshot: Snapshot, folder: Path) -> pl.DataFrame:
    """A snapshot in the columns of ``vigil export meds``."""
    view = hospital.view(snapshot)
    columns = ["subject_id", "time", "code", "numeric_value", "text_value", "visit_id", "recorded_at", "source_key"]
    for number, part in enumerate(view.select(columns).iter_slices(view.height // 2 + 1)):
        write(folder, part, f"data/{number}.parquet")
    return view


def awkward_hospital() -> Snapshot:
    """The small hospital, and what is hard to carry over: odd codes, floats and texts, corrections, deletions."""
    hospital.build()
    day = date(2024, 1, 20)
    with hospital.together():
        hospital.add_condition(900, 3, day, 0, condition_source_value="ICD9CM/4280")
        hospital.add_condition(901, 3, day, 0, condition_source_value='a "b", c\n\\d')
        for key, value in enumerate([0.1, 1e-40, -0.0, 3.4e38, 1 / 3, 16777217.0], start=900):
            hospital.add_lab(key, 3, day, value)
        for key, text in enumerate(["", " ", "NULL", "\\N", "é\t😀"], start=950):
            hospital.add_lab(key, 4, day, None, value_source_value=text)
        hospital.add_condition(4, 4, date(2024, 1, 5), 102, recorded=hospital.BASE)
        hospital.add_condition(5, 5, date(2024, 1, 6), recorded=hospital.BASE, removed=True)
        hospital.add_condition(6, 7, date(2024, 1, 7), recorded=hospital.BASE)
    return hospital.night(hospital.BASE)


def test_an_export_of_vigil_loads_back_to_the_digest_of_its_snapshot(
    vigil: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = awkward_hospital()
    export(snapshot, tmp_path / "dataset")
    shutil.rmtree(vigil.data_dir)
    monkeypatch.setenv("VIGIL_SOURCE", "meds")
    get_settings.cache_clear()
    report = load_meds(tmp_path / "dataset")
    assert report.history == "kept"
    assert any("newest version" in note for note in report.notes)
    again = hospital.night(hospital.BASE)
    assert (again.digest, again.subjects) == (snapshot.digest, snapshot.subjects)


def test_a_dataset_with_all_versions_keeps_its_history_and_repeated_versions_are_set_aside(
    meds: Settings, tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            "subject_id": [1, 1, 1],
            "time": [day("2020-05-01")] * 3,
            "code": ["ICD9CM/1", "ICD9CM/1", "ICD9CM/1"],  # taken as they are
            "recorded_at": [day("2020-05-02"), day("2020-05-03"), day("2020-05-02")],
            "source_key": ["x/1"] * 3,
            "removed": [False, True, False],
        },
    )
    report = load_meds(tmp_path)
    assert report.history == "kept"
    assert not any("newest version" in note for note in report.notes)
    assert [(row.code, row.recorded_at, row.removed) for row in events("events")] == [
        ("ICD9CM/1", day("2020-05-02"), False),
        ("ICD9CM/1", day("2020-05-03"), True),
    ]
    repeated = [("data/train/0.parquet", 3, "source_key occurs before")]
    assert [tuple(row) for row in hospital.ask(Role.LOAD, REJECTED)] == repeated


def test_the_command_prints_its_report_as_json(meds: Settings, tmp_path: Path) -> None:
    write(tmp_path, STANDARD)
    done = CliRunner().invoke(app, ["meds", str(tmp_path), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["rows"]["meds_events"] == 6


def test_the_mimic_demo_in_meds_loads_whole(meds: Settings, records: Path) -> None:
    report = load_meds(records / "mimic-iv-demo" / "meds", shift_days=-73_049)
    file = report.files[0]
    assert (file["read"], file["loaded"], file["rejected"], file["ignored_columns"]) == (
        916_166,
        916_166,
        {},
        ["table"],
    )
    counts = "select split_part(code, '//', 1), count(*) from ehr.meds_events group by 1"
    rows: dict[str, int] = dict(hospital.ask(Role.EXTRACT, counts))  # type: ignore[arg-type]
    assert (rows["ICD9CM"], rows["ICD10CM"], rows["MEDS_BIRTH"], rows["MEDS_DEATH"]) == (2_193, 2_313, 100, 31)
    keys = "select count(distinct source_key), min(recorded_at)::date, max(recorded_at)::date from ehr.meds_events"
    assert hospital.ask(Role.EXTRACT, keys) == [(916_166, date(1909, 10, 15), date(2002, 12, 16))]


def test_an_event_has_the_fields_of_the_schema() -> None:
    from ml.extraction.schema import EVENT_SCHEMA

    assert list(Event._fields) == EVENT_SCHEMA.names
