"""The demo hospital in Postgres: loaded once, then living on, day by day, as its future is let in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import polars as pl
from psycopg2 import sql

from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import ConfigError, NotFoundError, RefusedError, SourceError
from ml.common.progress import Progress
from ml.demo.concepts import load_codes
from ml.demo.generate import Order, Preset, generate, sampling
from ml.demo.process import END, FIRST_TODAY, HERE, START, rows
from ml.demo.tables import PATIENT_TABLES
from ml.settings import Role, get_settings

OMOP = HERE.parent / "sources" / "omop"
TRUTH = "truth"
OTHER_TABLES = (
    "location",
    "care_site",
    "concept",
    "concept_relationship",
    "vocabulary",
    "procedure_occurrence",
    "observation",
    "cdm_source",
)
TRUTH_TABLES = ("clock", "sampling", "effects", "diseases", "people", "onsets")


@dataclass(frozen=True)
class Status:
    """Where the demo hospital stands.

    Attributes:
        today: last day whose rows are in the EHR.
        end: last day of the generated calendar.
        rows: row versions in the EHR by table. held_back: rows that lie in the future.
    """

    today: date
    end: date
    patients: int
    preset: str
    seed: int
    rows: dict[str, int]
    held_back: int


def load_demo(
    patients: int | None = None, preset: Preset | None = None, seed: int | None = None, *, replace: bool = False
) -> bool:
    """Generate the hospital and load it, up to its first today; the rest waits in the truth schema.

    Args:
        patients, preset, seed: as in the settings where None.
        replace: drop what the EHR schema holds.

    Returns:
        False if the very same hospital was there already; then nothing was changed, nor its calendar.

    Raises:
        RefusedError: the EHR schema holds something else and ``replace`` is false.
        SourceError: Postgres cannot be reached or lacks the schemas.
    """
    settings = get_settings()
    order = Order(
        settings.demo_patients if patients is None else patients,
        settings.demo_preset if preset is None else preset,
        settings.seed if seed is None else seed,
    )
    if order.patients < 1:
        raise ConfigError("a hospital needs patients", "give --patients a number above 0")
    if not replace:
        found = _loaded()
        if found == order.identity:
            return False
        if found is not None:
            raise RefusedError(
                f"the schema '{settings.source_schema}' holds another hospital ({found or 'not the demo'})",
                "add --replace to drop it, or choose another schema with VIGIL_SOURCE_SCHEMA",
            )
    # The truth commits first: the EHR counts as loaded only when both name the same hospital.
    with connect(Role.LOAD) as ehr:
        _make_ehr(ehr)
        with connect(Role.TRUTH) as truth:
            _make_truth(truth, order)
            _fill(ehr, truth, order)
        _finish_ehr(ehr, order)
    return True


def advance(to: date) -> int:
    """Let the hospital live until the end of day ``to``; the number of row versions that came in.

    Advancing to today again changes nothing.

    Raises:
        NotFoundError: the demo hospital is not loaded.
        RefusedError: the day lies before today or beyond the generated calendar.
    """
    with connect(Role.LOAD) as ehr, connect(Role.TRUTH, readonly=True) as truth:
        execute(ehr, "select pg_advisory_xact_lock(hashtext('vigil demo advance'))")
        now, end = _today(ehr), _clock(truth)[1]
        if to < now:
            raise RefusedError(f"{to} lies before the hospital's today, {now}", f"give a day from {now} to {end}")
        if to > end:
            raise RefusedError(f"{to} lies beyond the hospital's calendar", f"give a day from {now} to {end}")
        came = 0 if to == now else sum(_let_in(ehr, truth, table, now, to) for table in PATIENT_TABLES)
        execute(ehr, "update cdm_source set source_release_date = %s, cdm_release_date = %s", (to, to))
        return came


def today() -> date:
    """Last day whose rows are in the demo's EHR.

    Raises:
        NotFoundError: the demo hospital is not loaded.
    """
    with connect(Role.LOAD, readonly=True) as ehr:
        return _today(ehr)


def status() -> Status:
    """Where the demo hospital stands.

    Raises:
        NotFoundError: the demo hospital is not loaded.
    """
    with connect(Role.LOAD, readonly=True) as ehr, connect(Role.TRUTH, readonly=True) as truth:
        now = _today(ehr)
        _, end, patients, preset, seed = _clock(truth)
        return Status(
            today=now,
            end=end,
            patients=patients,
            preset=preset,
            seed=seed,
            rows={table: _count(ehr, sql.Identifier(table)) for table in PATIENT_TABLES},
            held_back=sum(
                _count(truth, sql.Identifier(TRUTH, f"future_{table}"), after=now) for table in PATIENT_TABLES
            ),
        )


def _enter(ehr: Connection) -> sql.Identifier:
    """Make the EHR schema the one that unqualified names mean."""
    schema = sql.Identifier(get_settings().source_schema)
    with ehr.cursor() as cursor:
        cursor.execute(sql.SQL("set local search_path to {}").format(schema))
    return schema


def _exists(connection: Connection, schema: str, table: str) -> bool:
    query = "select 1 from information_schema.tables where table_schema = %s and table_name = %s"
    return bool(fetch(connection, query, (schema, table)))


def _loaded() -> str | None:
    """Identity of the demo in the EHR; '' for something else, None for an empty schema or half a load."""
    schema = get_settings().source_schema
    with connect(Role.LOAD, readonly=True) as ehr:
        if not _exists(ehr, schema, "cdm_source"):
            return "" if _exists(ehr, schema, "person") else None
        _enter(ehr)
        found = [row[0] or "" for row in fetch(ehr, "select cdm_etl_reference from cdm_source")]
    if not found or not found[0].startswith("vigil demo "):
        return ""
    with connect(Role.TRUTH, readonly=True) as truth:
        known = _exists(truth, TRUTH, "clock") and _clock(truth)[0] == found[0]
    return str(found[0]) if known else None


def _today(ehr: Connection) -> date:
    schema = get_settings().source_schema
    if not _exists(ehr, schema, "cdm_source"):
        raise NotFoundError("the demo hospital is not loaded", "run: vigil demo load")
    _enter(ehr)
    query = "select source_release_date from cdm_source where cdm_etl_reference like 'vigil demo %%'"
    found = fetch(ehr, query, ())
    if not found:
        raise NotFoundError("the demo hospital is not loaded", "run: vigil demo load")
    day: date = found[0][0]
    return day


def _clock(truth: Connection) -> tuple[str, date, int, str, int]:
    if not _exists(truth, TRUTH, "clock"):
        raise NotFoundError("the demo hospital's truth is not there", "run: vigil demo load --replace")
    identity, end, patients, preset, seed = fetch(
        truth, "select identity, end_day, patients, preset, seed from truth.clock"
    )[0]
    return identity, end, patients, preset, seed


def _count(connection: Connection, table: sql.Identifier, after: date | None = None) -> int:
    query = sql.SQL("select count(*) from {}").format(table)
    if after is not None:
        query += sql.SQL(" where recorded_at >= %s")
    with connection.cursor() as cursor:
        cursor.execute(query, None if after is None else (after + timedelta(days=1),))
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def _run_file(connection: Connection, path: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute(path.read_text())


def _make_ehr(ehr: Connection) -> None:
    schema = get_settings().source_schema
    if not fetch(ehr, "select 1 from pg_namespace where nspname = %s", (schema,)):
        raise SourceError(f"there is no schema '{schema}' in the EHR database", "set Postgres up first: make up")
    _enter(ehr)
    with ehr.cursor() as cursor:
        for table in (*PATIENT_TABLES, *OTHER_TABLES):
            cursor.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(schema, table)))
    _run_file(ehr, OMOP / "ddl.sql")


def _make_truth(truth: Connection, order: Order) -> None:
    futures = [f"future_{table}" for table in PATIENT_TABLES]
    with truth.cursor() as cursor:
        cursor.execute("set local search_path to truth")
        for table in (*TRUTH_TABLES, *futures):
            cursor.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(TRUTH, table)))
        # The future has the EHR's own columns.
        cursor.execute((OMOP / "ddl.sql").read_text())
        for table, future in zip(PATIENT_TABLES, futures, strict=True):
            cursor.execute(sql.SQL("alter table {} rename to {}").format(sql.Identifier(table), sql.Identifier(future)))
        for table in OTHER_TABLES:
            cursor.execute(sql.SQL("drop table {}").format(sql.Identifier(TRUTH, table)))
    _run_file(truth, HERE / "truth.sql")
    insert = "insert into truth.clock values (%s, %s, %s, %s, %s, %s)"
    execute(truth, insert, (order.identity, FIRST_TODAY, END, order.patients, order.preset, order.seed))
    for name, value in sampling(order).items():
        execute(truth, "insert into truth.sampling values (%s, %s)", (name, value))
    for name in ("effects", "diseases"):
        _copy_csv(truth, name)


def _copy_csv(truth: Connection, name: str) -> None:
    """One of the process's files into its truth table: the columns that the table has."""
    columns = _columns(truth, name)
    _copy(truth, sql.Identifier(TRUTH, name), pl.DataFrame(rows(f"{name}.csv")).select(columns))


def _columns(truth: Connection, table: str) -> list[str]:
    query = (
        "select column_name from information_schema.columns where table_schema = %s and table_name = %s"
        " order by ordinal_position"
    )
    return [row[0] for row in fetch(truth, query, (TRUTH, table))]


def _copy(connection: Connection, table: sql.Identifier, frame: pl.DataFrame) -> None:
    if frame.is_empty():
        return
    buffer = BytesIO()
    frame.write_csv(buffer, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")
    buffer.seek(0)
    _copy_in(connection, table, frame.columns, buffer)


def _copy_in(connection: Connection, table: sql.Identifier, columns: Iterable[str], source: IO[Any]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("copy {} ({}) from stdin with (format csv)").format(table, names)
    with connection.cursor() as cursor:
        cursor.copy_expert(statement, source)


def _fill(ehr: Connection, truth: Connection, order: Order) -> None:
    progress, done = Progress("demo load", order.patients), 0
    cut, over = (datetime.combine(day + timedelta(days=1), datetime.min.time()) for day in (FIRST_TODAY, END))
    for chunk in generate(order):
        for table in PATIENT_TABLES:
            frame, known = chunk.ehr[table], pl.col("recorded_at") < cut
            _copy(ehr, sql.Identifier(table), frame.filter(known))
            _copy(
                truth, sql.Identifier(TRUTH, f"future_{table}"), frame.filter(~known & (pl.col("recorded_at") < over))
            )
        _copy(truth, sql.Identifier(TRUTH, "people"), chunk.people)
        _copy(truth, sql.Identifier(TRUTH, "onsets"), chunk.onsets)
        done += len(chunk.people)
        progress.report(done, "patients")
    for table in (f"future_{name}" for name in PATIENT_TABLES):
        with truth.cursor() as cursor:
            cursor.execute(sql.SQL("create index on {} (recorded_at)").format(sql.Identifier(TRUTH, table)))


def _finish_ehr(ehr: Connection, order: Order) -> None:
    codes = load_codes()
    _copy(
        ehr,
        sql.Identifier("concept"),
        pl.DataFrame(
            {
                "concept_id": codes.concept_ids(),
                "concept_name": codes.names,
                "domain_id": codes.domains,
                "vocabulary_id": codes.vocabularies,
                "concept_code": codes.codes,
                "valid_start_date": [START] * len(codes.names),
                "valid_end_date": [date(2099, 12, 31)] * len(codes.names),
            }
        ),
    )
    for vocabulary in sorted(set(codes.vocabularies)):
        insert = "insert into vocabulary (vocabulary_id, vocabulary_name, vocabulary_concept_id) values (%s, %s, 0)"
        execute(ehr, insert, (vocabulary, vocabulary))
    for number, site in enumerate(("A", "B"), start=1):
        execute(ehr, "insert into location (location_id, location_source_value) values (%s, %s)", (number, site))
        execute(
            ehr,
            "insert into care_site (care_site_id, care_site_name, location_id, care_site_source_value)"
            " values (%s, %s, %s, %s)",
            (number, f"Site {site}", number, site),
        )
    execute(
        ehr,
        "insert into cdm_source (cdm_source_name, cdm_source_abbreviation, cdm_holder, source_description,"
        " cdm_etl_reference, source_release_date, cdm_release_date, cdm_version)"
        " values ('Vigil demo hospital', 'demo', 'Vigil', %s, %s, %s, %s, '5.4')",
        ("generated; " + "; ".join(sampling(order).values()), order.identity, FIRST_TODAY, FIRST_TODAY),
    )
    _run_file(ehr, OMOP / "keys.sql")
    for table in PATIENT_TABLES:
        with ehr.cursor() as cursor:
            cursor.execute(sql.SQL("analyze {}").format(sql.Identifier(table)))


def _let_in(ehr: Connection, truth: Connection, table: str, now: date, to: date) -> int:
    """Copy the rows recorded after ``now`` and by the end of ``to`` from the future into the EHR."""
    columns = _columns(truth, f"future_{table}")
    select = sql.SQL(
        "copy (select {} from {} where recorded_at >= {} and recorded_at < {}) to stdout with (format csv)"
    )
    days = (sql.Literal(now + timedelta(days=1)), sql.Literal(to + timedelta(days=1)))
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with SpooledTemporaryFile(max_size=32 << 20) as file, truth.cursor() as source:
        source.copy_expert(select.format(names, sql.Identifier(TRUTH, f"future_{table}"), *days), file)
        file.seek(0)
        _copy_in(ehr, sql.Identifier(table), columns, file)
        return source.rowcount
