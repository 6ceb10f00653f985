"""The frame of every loader: find and check the files, one transaction, once per set of files."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import RefusedError, SourceError
from ml.common.files import sha256_json
from ml.settings import Role, get_settings
from ml.sources.loading.csv_files import check_file, find_csv
from ml.sources.loading.session import FileReport, LoadSession

log = logging.getLogger(__name__)

GRANTEES = """
select distinct grantee from information_schema.role_table_grants
where table_schema = %s and table_name = 'rejected_rows' and grantee <> current_user
"""


@dataclass(frozen=True)
class Loader:
    """How one kind of export is loaded.

    Attributes:
        name: of the command.
        layout: the source that reads the result.
        ddl: file that creates the layout's tables.
        required: stems of files that must be there.
        used: stems of files it uses; others are left alone and named. None: all.
        fill: stages and inserts; gives the history (``kept`` or ``assumed``) and notes for a person to read.
        find: the files of a directory, by stem.
        check: proves a file readable; its SHA-256.
        options: what else decides what is loaded.
    """

    name: str
    layout: str
    ddl: Path
    required: tuple[str, ...]
    used: tuple[str, ...] | None
    fill: Callable[[LoadSession, Mapping[str, Path]], tuple[str, list[str]]]
    find: Callable[[Path], Mapping[str, Path]] = find_csv
    check: Callable[[Path], str] = check_file
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def tables(self) -> list[str]:
        return re.findall(r"^create table (\w+)", self.ddl.read_text(), re.MULTILINE)


@dataclass(frozen=True)
class LoadReport:
    """What a load did. Counts only.

    Attributes:
        already: these very files were loaded before; nothing was done, and the counts are those of then.
        rows: rows per table of the layout.
        files: per file: table, read, loaded, rejected by reason, without_visit, ignored_columns.
    """

    loader: str
    already: bool
    history: str
    rows: dict[str, int]
    files: list[dict[str, Any]]
    notes: list[str]


def load(loader: Loader, directory: Path, *, replace: bool = False) -> LoadReport:
    """Load a directory of files. All or nothing.

    Raises:
        SourceError: a file is missing, unreadable or not UTF-8, or lacks a required column.
        RefusedError: the schema holds other records and ``replace`` is false.
    """
    files = loader.find(directory)
    if missing := [stem for stem in loader.required if stem not in files]:
        raise SourceError(f"{directory} has no {missing[0]}.csv or {missing[0]}.csv.gz", "name the export's folder")
    used = {stem: path for stem, path in files.items() if loader.used is None or stem in loader.used}
    identity = {"loader": loader.name, "files": {stem: loader.check(path) for stem, path in used.items()}}
    digest = sha256_json({**identity, **({"options": loader.options} if loader.options else {})})
    try:
        return _load_once(loader, used, set(files) - set(used), digest, replace)
    except psycopg2.Error as error:  # its message may quote a row
        raise SourceError(
            f"Postgres refused the load (SQLSTATE {error.pgcode or 'unknown'})",
            "nothing was loaded; see the server's log",
        ) from None


def _load_once(loader: Loader, files: Mapping[str, Path], unused: set[str], digest: str, replace: bool) -> LoadReport:
    schema = get_settings().source_schema
    with connect(Role.LOAD) as connection:
        _bookkeeping(connection, schema)
        before = _loaded_before(connection, schema, loader)
        if before is not None and before["digest"] == digest and not replace:
            return LoadReport(loader.name, True, before["history"], **before["summary"])
        if not replace and _holds_rows(connection, schema, loader):
            raise RefusedError(
                f"schema {schema} holds other records already",
                "load with --replace to remove them, or set VIGIL_SOURCE_SCHEMA",
            )
        return _load(LoadSession(connection, schema, loader.name), loader, files, unused, digest)


def _load(session: LoadSession, loader: Loader, files: Mapping[str, Path], unused: set[str], digest: str) -> LoadReport:
    schema = sql.Identifier(session.schema)
    session.run(sql.SQL("set local search_path to {}").format(schema))
    for table in loader.tables:
        session.run(sql.SQL("drop table if exists {}").format(session.table(table)))
    session.run(sql.SQL("delete from {}").format(session.table("rejected_rows")))
    session.run(sql.SQL("delete from {} where layout = %s").format(session.table("loads")), (loader.layout,))
    session.run(loader.ddl.read_text())
    history, notes = loader.fill(session, files)
    session.drop_staging()
    if (keys := loader.ddl.with_name("keys.sql")).is_file():
        session.run(keys.read_text())
    session.run("analyze" if not loader.tables else _analyze(session, loader.tables))
    rows = {table: _count(session, table) for table in loader.tables}
    if unused:
        notes.append(f"files not used: {', '.join(sorted(unused))}")
    summary: dict[str, Any] = {"rows": rows, "files": [_describe(report) for report in session.reports], "notes": notes}
    session.record(loader.layout, digest, history, summary)
    return LoadReport(loader.name, False, history, **summary)


def _analyze(session: LoadSession, tables: list[str]) -> sql.Composable:
    return sql.SQL("analyze {}").format(sql.SQL(", ").join(session.table(table) for table in tables))


def _bookkeeping(connection: Connection, schema: str) -> None:
    """Make ``loads`` and ``rejected_rows``; only the loader may read the latter, which holds raw patient rows."""
    if not fetch(connection, "select 1 from pg_namespace where nspname = %s", (schema,)):
        raise SourceError(f"there is no schema {schema} in the EHR database", "create it (vigil db bootstrap)")
    execute(connection, "select pg_advisory_xact_lock(hashtext('vigil load'))")
    statement = sql.SQL((Path(__file__).parent / "bookkeeping.sql").read_text())
    execute(connection, "set local client_min_messages to warning")
    execute(connection, statement.format(schema=sql.Identifier(schema)))
    for (grantee,) in fetch(connection, GRANTEES, (schema,)):
        revoke = sql.SQL("revoke all on {} from {}")
        execute(connection, revoke.format(sql.Identifier(schema, "rejected_rows"), sql.Identifier(grantee)))


def _loaded_before(connection: Connection, schema: str, loader: Loader) -> dict[str, Any] | None:
    query = sql.SQL("select digest, history, summary from {} where layout = %s order by loaded_at desc limit 1")
    rows = fetch(connection, query.format(sql.Identifier(schema, "loads")), (loader.layout,))
    return dict(zip(("digest", "history", "summary"), rows[0], strict=True)) if rows else None


def _holds_rows(connection: Connection, schema: str, loader: Loader) -> bool:
    for table in loader.tables:
        name = sql.Identifier(schema, table).as_string(connection)
        exists = fetch(connection, "select to_regclass(%s)", (name,))[0][0] is not None
        if exists and fetch(connection, sql.SQL("select 1 from {} limit 1").format(sql.Identifier(schema, table))):
            return True
    return False


def _count(session: LoadSession, table: str) -> int:
    return int(fetch(session.connection, sql.SQL("select count(*) from {}").format(session.table(table)))[0][0])


def _describe(report: FileReport) -> dict[str, Any]:
    return {
        "file": report.file,
        "table": report.table,
        "read": report.read,
        "loaded": report.loaded,
        "rejected": dict(sorted(report.rejected.items())),
        "without_visit": report.without_visit,
        "ignored_columns": list(report.ignored_columns),
    }
