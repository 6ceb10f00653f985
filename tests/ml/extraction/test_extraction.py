"""Extraction: what a night takes, what it refuses, and that it can be killed anywhere."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml.common.errors import ConfigError, NotFoundError, RefusedError, SourceError
from ml.extraction import commit_snapshot, extract, load_snapshot, newest_snapshot, read_view
from ml.extraction.log import day_path, pending_partition, pending_path, write_committed
from ml.extraction.schema import EVENT_SCHEMA
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE, PEOPLE

NEXT = BASE + timedelta(days=1)


@pytest.fixture
def small(vigil: Settings) -> Settings:
    hospital.build()
    return vigil


def set_env(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"VIGIL_{name}", str(value))
    get_settings.cache_clear()


def files_of(day: date) -> dict[Any, bytes]:
    return {path: path.read_bytes() for path in day_path(day).rglob("*") if path.is_file()}


def test_the_base_load_takes_everything_recorded_by_as_of_and_nothing_later(small: Settings) -> None:
    hospital.add_condition(900, 3, BASE, 102, recorded=NEXT)
    summary = extract(BASE)
    assert summary.rows == {
        "person": 4 * PEOPLE,
        "visit_occurrence": 2 * PEOPLE,  # stays within a day have no end: a tombstone says so
        "condition_occurrence": PEOPLE,
        "drug_exposure": PEOPLE,
        "procedure_occurrence": 0,
        "measurement": PEOPLE,
        "observation": 0,
        "death": 1,
    }
    assert (summary.recorded_from, summary.recorded_to, summary.history) == (None, BASE, "kept")
    hospital.accept(BASE)
    view = hospital.view(commit_snapshot(BASE))
    assert view.columns == EVENT_SCHEMA.names
    assert hospital.codes_of(view, "condition_occurrence/900") == []
    assert hospital.codes_of(view, "condition_occurrence/3") == ["ICD10CM//I50.9"]


def test_a_view_is_sorted_with_static_events_first_and_holds_no_tombstone(small: Settings) -> None:
    snapshot = hospital.night(BASE)
    view = read_view(snapshot, BASE, 0)
    assert view.equals(view.sort(["subject_id", "time", "code", "source_key"], nulls_last=False))
    assert not view["removed"].any()
    first = view.group_by("subject_id", maintain_order=True).first()
    assert first["time"].null_count() == first.height
    assert set(first["code"]) == {"GENDER//F"}


def test_events_carry_code_time_value_visit_and_key(small: Settings) -> None:
    hospital.add_lab(901, 2, BASE, None, value_source_value="high", measurement_concept_id=0)
    hospital.add_lab(902, 2, BASE, 5.5, measurement_source_value="local-7", measurement_concept_id=0)
    view = hospital.view(hospital.night(BASE))
    lab = view.filter(pl.col("source_key") == "measurement/2").row(0, named=True)
    assert (lab["code"], lab["numeric_value"], lab["time"]) == ("LOINC//4548-4", 6.5, datetime(2024, 1, 3))
    assert lab["recorded_at"] == datetime(2024, 1, 3, 12)
    assert view.filter(pl.col("source_key") == "measurement/901")["text_value"].to_list() == ["high"]
    assert hospital.codes_of(view, "measurement/902") == ["SOURCE//local-7"]
    assert view.filter(pl.col("code") == "MEDS_BIRTH", pl.col("subject_id") == 2)["time"].to_list() == [
        datetime(1952, 1, 1)
    ]
    assert view.filter(pl.col("code") == "VISIT//inpatient", pl.col("subject_id") == 2)["visit_id"].to_list() == [2]
    assert view.filter(pl.col("code") == "SITE//A").height == PEOPLE


def test_the_next_night_takes_only_the_days_since_and_the_view_shows_corrections_and_deletions(small: Settings) -> None:
    hospital.night(BASE)
    hospital.add_condition(4, 4, date(2024, 1, 5), 102, recorded=NEXT)  # correction
    hospital.add_condition(5, 5, date(2024, 1, 6), 101, recorded=NEXT, removed=True)  # deletion
    hospital.add_condition(901, 6, date(2024, 1, 7), 102, recorded=NEXT)  # late row
    summary = extract(NEXT)
    assert (summary.recorded_from, sum(summary.rows.values())) == (NEXT, 3)
    hospital.accept(NEXT)
    snapshot = commit_snapshot(NEXT)
    today, yesterday = hospital.view(snapshot), hospital.view(snapshot, BASE)
    assert hospital.codes_of(today, "condition_occurrence/4") == ["ICD10CM//E11.9"]
    assert hospital.codes_of(today, "condition_occurrence/5") == []
    assert hospital.codes_of(today, "condition_occurrence/901") == ["ICD10CM//E11.9"]
    assert hospital.codes_of(yesterday, "condition_occurrence/4") == ["ICD10CM//I50.9"]
    assert hospital.codes_of(yesterday, "condition_occurrence/5") == ["ICD10CM//I50.9"]
    assert hospital.codes_of(yesterday, "condition_occurrence/901") == []


def test_a_record_that_moves_to_another_person_leaves_the_first(small: Settings) -> None:
    hospital.night(BASE)
    hospital.add_condition(4, 11, date(2024, 1, 5), 101, recorded=NEXT)
    view = hospital.view(hospital.night(NEXT))
    assert view.filter(pl.col("source_key") == "condition_occurrence/4")["subject_id"].to_list() == [11]


def test_a_sex_that_is_no_longer_known_leaves_the_view(small: Settings) -> None:
    hospital.night(BASE)
    hospital.add("person", NEXT, person_id=4, gender_concept_id=0, year_of_birth=1954)
    view = hospital.view(hospital.night(NEXT))
    assert hospital.codes_of(view, "person/4/gender") == []
    assert hospital.codes_of(view, "person/5/gender") == ["GENDER//F"]


def test_nights_missed_are_caught_up_in_one_partition(small: Settings) -> None:
    hospital.night(BASE)
    hospital.add_condition(901, 6, NEXT, 102)
    later = NEXT + timedelta(days=3)
    hospital.add_condition(902, 6, later, 102)
    summary = extract(later)
    assert (summary.recorded_from, summary.recorded_to, sum(summary.rows.values())) == (NEXT, later, 2)


def test_an_empty_night_is_no_fault_and_leaves_the_digest_as_it_was(small: Settings) -> None:
    first = hospital.night(BASE)
    summary = extract(NEXT)
    assert summary.empty
    hospital.accept(NEXT)
    assert commit_snapshot(NEXT).digest == first.digest


def test_a_covered_day_is_not_extracted_again_and_a_committed_partition_never_changes(small: Settings) -> None:
    hospital.night(BASE)
    before = files_of(BASE)
    hospital.run("update ehr.condition_occurrence set condition_concept_id = 102")
    summary = extract(BASE)
    assert summary.covered
    assert not pending_path(BASE).exists()
    commit_snapshot(BASE)
    assert files_of(BASE) == before


def test_a_pending_partition_is_replaced_by_a_rerun(small: Settings) -> None:
    extract(BASE)
    hospital.add_condition(901, 6, BASE, 102)
    assert extract(BASE).rows["condition_occurrence"] == PEOPLE + 1


def test_a_source_without_history_is_taken_as_known_when_the_visit_ends(small: Settings) -> None:
    hospital.run("update ehr.visit_occurrence set visit_end_date = '2024-01-20' where visit_occurrence_id = 4")
    hospital.run("update ehr.condition_occurrence set visit_occurrence_id = 4 where condition_occurrence_id = 4")
    for table in hospital.KEYS:
        hospital.run(f"alter table ehr.{table} drop column recorded_at, drop column removed")
    for table in ("observation_period", "procedure_occurrence", "observation"):
        hospital.run(f"drop table ehr.{table}")
    summary = extract(BASE)
    assert summary.history == "assumed"
    hospital.accept(BASE)
    view = hospital.view(commit_snapshot(BASE))
    recorded = dict(view.filter(pl.col("code") == "ICD10CM//I50.9").select("source_key", "recorded_at").iter_rows())
    assert recorded["condition_occurrence/4"] == datetime(2024, 1, 20, 23, 59, 59, 999999)
    assert recorded["condition_occurrence/5"] == datetime(2024, 1, 6, 23, 59, 59, 999999)
    assert view["subject_id"].n_unique() == PEOPLE


def test_rows_that_no_night_could_take_are_counted(small: Settings) -> None:
    hospital.run("alter table ehr.condition_occurrence drop constraint condition_occurrence_pkey")
    hospital.run("alter table ehr.condition_occurrence alter person_id drop not null, alter recorded_at drop not null")
    hospital.run("update ehr.condition_occurrence set person_id = null where condition_occurrence_id = 4")
    hospital.run("update ehr.condition_occurrence set recorded_at = null where condition_occurrence_id in (5, 6)")
    summary = extract(BASE)
    partition = pending_partition(BASE)
    assert partition is not None
    assert partition.unplaced == {"condition_occurrence": 3}
    assert summary.rows["condition_occurrence"] == PEOPLE - 3


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("alter table ehr.condition_occurrence drop column condition_start_date", "condition_start_date"),
        ("drop table ehr.visit_occurrence", "ehr.visit_occurrence"),
        ("revoke select on ehr.measurement from vigil_extract", "ehr.measurement"),
    ],
)
def test_what_the_source_lacks_is_named(small: Settings, statement: str, named: str) -> None:
    hospital.run(statement)
    with pytest.raises(SourceError, match=named):
        extract(BASE)
    assert not pending_path(BASE).exists()


def test_a_source_that_cannot_be_reached_is_named_without_its_password(
    vigil: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_env(monkeypatch, EXTRACT_DSN="postgresql://vigil_extract:very-secret@127.0.0.1:1/ehr")
    with pytest.raises(SourceError, match=r"cannot connect to Postgres at 127\.0\.0\.1:1/ehr") as caught:
        extract(BASE)
    assert "very-secret" not in str(caught.value)


def test_a_source_with_every_row_after_as_of_is_refused(small: Settings) -> None:
    with pytest.raises(SourceError, match="nothing in schema ehr was recorded by 2023-12-31"):
        extract(date(2023, 12, 31))


def test_text_that_is_not_utf8_is_refused(postgres: Any, vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that checks no encoding lets any byte in."""
    from psycopg2 import sql
    from psycopg2.extensions import make_dsn

    import infra.postgres.setup as setup

    grants = sql.SQL((Path(setup.__file__).parent / "ehr.sql").read_text()).format(schema=sql.Identifier("ehr"))
    with setup.administer(postgres.admin_dsn) as admin, admin.cursor() as cursor:
        cursor.execute("create database unchecked template template0 encoding 'SQL_ASCII' locale 'C'")
    with setup.administer(make_dsn(postgres.admin_dsn, dbname="unchecked")) as admin, admin.cursor() as cursor:
        cursor.execute(grants)
    set_env(
        monkeypatch,
        LOAD_DSN=postgres.dsn(Role.LOAD, "unchecked"),
        EXTRACT_DSN=postgres.dsn(Role.EXTRACT, "unchecked"),
    )
    try:
        hospital.build()
        hospital.run(
            "update ehr.condition_occurrence set condition_concept_id = 0, condition_source_value = E'caf\\xe9' "
            "where condition_occurrence_id = 4"
        )
        with pytest.raises(SourceError, match="'condition_occurrence' hold text that is not UTF-8"):
            extract(BASE)
        assert not pending_path(BASE).exists()
    finally:
        with setup.administer(postgres.admin_dsn) as admin:
            setup.drop_database(admin, "unchecked")


def test_a_day_that_is_not_over_is_refused(small: Settings) -> None:
    with pytest.raises(RefusedError, match="is not over"):
        extract(datetime.now(UTC).date())


def test_another_number_of_shards_or_another_source_is_refused(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.night(BASE)
    set_env(monkeypatch, SHARDS=8)
    with pytest.raises(ConfigError, match="set VIGIL_SHARDS=4"):
        extract(NEXT)
    set_env(monkeypatch, SHARDS=3)
    with pytest.raises(ConfigError, match="power of two"):
        extract(NEXT)
    set_env(monkeypatch, SHARDS=4, HOSPITAL="another")
    with pytest.raises(ConfigError, match="another setting of hospital"):
        extract(NEXT)


def test_a_second_writer_is_refused_while_the_first_works(small: Settings) -> None:
    extract(BASE)
    with (small.data_dir / "event_log" / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for step in (extract, commit_snapshot):
            with pytest.raises(RefusedError, match="another process"):
                step(BASE)
    assert extract(BASE).rows["death"] == 1


def test_an_extraction_killed_at_its_end_leaves_nothing_and_the_next_completes_it(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml.extraction.night  # noqa: F401

    module = __import__("sys").modules["ml.extraction.night"]
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(module, "write_pending", lambda *_: os._exit(9))
        try:
            extract(BASE)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not pending_path(BASE).exists()
    assert extract(BASE).rows["death"] == 1


def test_a_commit_killed_between_its_steps_is_completed_by_the_next(small: Settings) -> None:
    extract(BASE)
    hospital.accept(BASE)
    pending = pending_partition(BASE)
    assert pending is not None
    write_committed(pending)  # killed here: no snapshot yet
    with pytest.raises(NotFoundError, match="no snapshot"):
        load_snapshot(BASE)
    snapshot = commit_snapshot(BASE)
    assert load_snapshot(BASE) == snapshot == newest_snapshot()


def test_nothing_is_committed_without_a_passing_verdict_on_these_very_rows(small: Settings) -> None:
    with pytest.raises(NotFoundError, match="no pending partition"):
        commit_snapshot(BASE)
    extract(BASE)
    with pytest.raises(RefusedError, match="has not judged"):
        commit_snapshot(BASE)
    hospital.accept(BASE)
    extract(BASE)  # new rows, and the old verdict is gone with the old ones
    with pytest.raises(RefusedError, match="has not judged"):
        commit_snapshot(BASE)
    hospital.accept(BASE)
    manifest = pending_path(BASE)
    manifest.write_text(manifest.read_text().replace('"removed": ', '"removed": 1'))
    with pytest.raises(RefusedError, match="about other rows"):
        commit_snapshot(BASE)


def test_a_file_changed_after_extraction_is_refused(small: Settings) -> None:
    extract(BASE)
    hospital.accept(BASE)
    file = sorted(day_path(BASE).glob("*/part-*.parquet"))[0]
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(RefusedError, match="was changed"):
        commit_snapshot(BASE)


def test_a_pending_partition_that_no_longer_follows_the_log_is_refused(small: Settings) -> None:
    later = NEXT + timedelta(days=1)
    hospital.night(BASE)
    extract(later)
    hospital.accept(later)
    hospital.night(NEXT)
    with pytest.raises(RefusedError, match="no longer follows"):
        commit_snapshot(later)


def test_views_beyond_the_snapshot_and_absent_snapshots_are_refused(small: Settings) -> None:
    with pytest.raises(NotFoundError, match="no snapshot yet"):
        newest_snapshot()
    snapshot = hospital.night(BASE)
    with pytest.raises(RefusedError, match="is after the snapshot"):
        read_view(snapshot, NEXT, 0)
    with pytest.raises(NotFoundError, match="no shard 4"):
        read_view(snapshot, BASE, 4)
