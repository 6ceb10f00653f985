"""Reconciliation: what a night cannot see is found, counted, and corrected by the next one."""

from __future__ import annotations

import itertools
import json
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg2 import sql
from typer.testing import CliRunner

from ml.cli import app
from ml.common.db import connect, execute, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.extraction import extract
from ml.extraction.corrections import corrections
from ml.extraction.lock import locked
from ml.extraction.log import committed_partition, pending_partition
from ml.extraction.reconcile import CELLS, SQL, Reconciliation, hash_cells, reconcile
from ml.extraction.view import COLUMNS
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE, PEOPLE

NEXT = BASE + timedelta(days=1)
THIRD = BASE + timedelta(days=2)
CONTENT = [name for name in COLUMNS if name != "recorded_at"]
_numbers = itertools.count(1)


@pytest.fixture
def small(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The small hospital after its first night; its calendar lies in the past."""
    monkeypatch.setenv("VIGIL_CALENDAR_END", "2024-12-31")
    get_settings.cache_clear()
    hospital.build()
    hospital.night(BASE)
    return get_settings()


def behind_our_back() -> None:
    """What no night can see."""
    hospital.run("delete from ehr.condition_occurrence where condition_occurrence_id in (4, 5)")
    hospital.run("update ehr.measurement set value_as_number = 9.5 where measurement_id = 7")
    hospital.run("update ehr.drug_exposure set person_id = 8 where drug_exposure_id = 9")  # a move without a version
    hospital.add_condition(900, 6, date(2024, 1, 7), 102, recorded=date(2024, 1, 20))  # committed late


def found(result: Reconciliation) -> dict[str, tuple[int, int, int]]:
    return {t.table: (t.deleted, t.edited, t.missed) for t in result.tables if t.total}


def test_a_log_that_agrees_is_compared_by_hash_alone(small: Settings) -> None:
    result = reconcile()
    assert (result.differences, result.correction, result.cells[1]) == (0, None, 0)
    assert result.cells[0] >= 5 * PEOPLE
    rows = {table.table: (table.source_rows, table.log_rows) for table in result.tables}
    assert rows["condition_occurrence"] == (PEOPLE, PEOPLE)
    assert rows["person"] == (3 * PEOPLE, 3 * PEOPLE)  # birth, sex, site: their race is not known


def test_deletions_edits_moves_and_late_commits_are_found_and_the_next_night_mends_them(
    small: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = hospital.view(hospital.night(BASE))
    behind_our_back()
    result = reconcile()
    assert found(result) == {
        "condition_occurrence": (2, 0, 1),
        "measurement": (0, 1, 0),
        "drug_exposure": (1, 0, 1),
    }
    assert result.recorded_at == datetime.combine(NEXT, time.min)
    assert result.cells[1] <= 7 < result.cells[0]
    hospital.add_condition(901, 3, NEXT, 102)
    assert extract(NEXT).rows["condition_occurrence"] == 3 + 1
    pending = pending_partition(NEXT)
    assert pending is not None
    assert pending.corrections == {result.correction: 6}
    snapshot = hospital.night(NEXT)
    mended = hospital.view(snapshot)
    assert hospital.view(snapshot, BASE).equals(before), "what was known then stays as it was"
    monkeypatch.setenv("VIGIL_DATA", str(tmp_path / "scratch"))
    get_settings.cache_clear()
    scratch = hospital.view(hospital.night(NEXT))
    assert mended.select(CONTENT).equals(scratch.select(CONTENT))


def test_a_second_reconciliation_finds_nothing_before_and_after_the_night(small: Settings) -> None:
    behind_our_back()
    assert reconcile().differences == 6
    assert reconcile().differences == 0
    assert len(corrections()) == 1
    hospital.night(NEXT)
    assert reconcile().differences == 0
    behind = committed_partition(NEXT)
    assert behind is not None
    hospital.night(THIRD)
    assert committed_partition(THIRD).corrections == {}  # type: ignore[union-attr]


def test_a_source_without_history_is_followed_by_reconciliation_alone(
    vigil: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_CALENDAR_END", "2024-12-31")
    get_settings.cache_clear()
    hospital.build()
    for table in hospital.KEYS:
        hospital.run(f"alter table ehr.{table} drop column recorded_at, drop column removed")
    hospital.night(BASE)
    hospital.run("delete from ehr.condition_occurrence where condition_occurrence_id = 4")
    hospital.run("update ehr.measurement set value_as_number = null where measurement_id = 7")
    hospital.night(NEXT)
    result = reconcile()
    assert found(result) == {"condition_occurrence": (1, 0, 0), "measurement": (0, 1, 0)}
    view = hospital.view(hospital.night(THIRD))
    assert hospital.codes_of(view, "condition_occurrence/4") == []
    assert view.filter(pl.col("source_key") == "measurement/7")["numeric_value"].to_list() == [None]
    assert reconcile().differences == 0


def test_in_production_a_correction_bears_the_moment_of_the_comparison(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIGIL_CALENDAR_END")
    get_settings.cache_clear()
    behind_our_back()
    result = reconcile()
    assert result.recorded_at is not None
    assert abs((result.recorded_at - datetime.utcnow()).total_seconds()) < 600
    assert extract(NEXT).rows["measurement"] == 0, "the correction is not known yet on that day"


def test_a_dry_run_writes_nothing_and_tells_by_its_exit_code(small: Settings) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["reconcile", "--dry-run"]).exit_code == 0
    behind_our_back()
    result = runner.invoke(app, ["reconcile", "--dry-run", "--json"])
    assert result.exit_code == 8
    assert json.loads(result.stdout)["differences"] == 6
    assert corrections() == []
    shown = runner.invoke(app, ["reconcile"])
    assert shown.exit_code == 0
    assert "6 corrections" in shown.stdout
    assert len(corrections()) == 1


def test_without_a_night_or_beside_a_writer_it_is_refused(vigil: Settings) -> None:
    with pytest.raises(NotFoundError, match="event log is empty"):
        reconcile()
    with locked("extract"), pytest.raises(RefusedError, match="cannot start 'reconcile'"):
        reconcile()


texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
odd_floats = st.none() | st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-45, 3.4e38])
times = st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1))
rows = st.lists(
    st.tuples(st.integers(-(2**40), 2**40), times, texts, odd_floats, texts, st.none() | st.integers(0, 2**40)),
    max_size=5,
)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_source_and_log_hash_alike_whatever_the_values(vigil: Settings, rows: list[tuple[Any, ...]]) -> None:
    columns = ["subject_id", "time", "code", "numeric_value", "text_value", "visit_id"]
    full = [
        dict(zip(columns, row, strict=True))
        | {"code": row[2] or "", "source_key": f"t/{n}|x", "recorded_at": datetime(2020, 1, 1), "removed": False}
        for n, row in enumerate(rows)
    ]
    frame = pl.DataFrame(full, schema=COLUMNS)
    table = f"hashed_{next(_numbers)}"
    with connect(Role.LOAD) as connection:
        create = (
            "create table {} (subject_id bigint, time timestamp, code text, numeric_value real, "
            "text_value text, visit_id bigint, recorded_at timestamp, source_key text, removed boolean)"
        )
        execute(connection, sql.SQL(create).format(sql.Identifier("ehr", table)))
        values = sql.SQL(", ").join(sql.SQL("%s::real" if n == "numeric_value" else "%s") for n in COLUMNS)
        insert = sql.SQL("insert into {} values ({})").format(sql.Identifier("ehr", table), values)
        for row in full:
            execute(connection, insert, [str(v) if isinstance(v, float) else v for v in map(row.get, COLUMNS)])
        events = sql.SQL("select * from {}").format(sql.Identifier("ehr", table))
        query = sql.SQL((SQL / "cells.sql").read_text()).format(events=events, cells=sql.Literal(CELLS))
        there = {(kind, cell): (count, int(hashed)) for kind, cell, count, hashed in fetch(connection, query)}
    assert hash_cells(frame) == there
