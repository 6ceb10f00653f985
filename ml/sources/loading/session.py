"""One load: staging tables, rejected rows and the record of what was loaded, inside one transaction."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from psycopg2 import sql

from ml.common.db import Connection, execute, fetch
from ml.common.errors import SourceError
from ml.common.progress import Progress
from ml.sources.loading.convert import TableSpec, convert
from ml.sources.loading.csv_files import BATCH, CsvReader, Malformed

DUPLICATES = """
with numbered as (select line, row_number() over (partition by {key} order by line) as n from {staging})
delete from {staging} s using numbered d where d.line = s.line and d.n > 1 returning s.line
"""
COLUMNS = """
select column_name, case data_type when 'timestamp without time zone' then 'timestamp' else data_type end,
       is_nullable = 'NO'
from information_schema.columns where table_schema = %s and table_name = %s order by ordinal_position
"""


@dataclass
class FileReport:
    """What became of one file's rows."""

    file: str
    table: str
    read: int = 0
    loaded: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    without_visit: int = 0
    ignored_columns: tuple[str, ...] = ()


class LoadSession:
    """Stages and inserts tables of one layout into one schema."""

    def __init__(self, connection: Connection, schema: str, loader: str) -> None:
        self.connection, self.schema, self.loader = connection, schema, loader
        self.reports: list[FileReport] = []
        self.staged: list[str] = []
        self.columns: dict[str, list[str]] = {}
        self.subjects: npt.NDArray[np.int64] | None = None
        self.visits: npt.NDArray[np.int64] | None = None

    def table(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, name)

    def staging(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.schema, f"staging_{name}")

    def run(self, statement: str | sql.Composable, parameters: object = None) -> int:
        return execute(self.connection, statement, parameters)

    def catalogue(self, table: str) -> dict[str, tuple[str, bool]]:
        """Type and whether it must be filled, by column of an existing table."""
        rows = fetch(self.connection, COLUMNS, (self.schema, table))
        return {name: (kind, needed) for name, kind, needed in rows}

    def ids(self, table: str, column: str) -> npt.NDArray[np.int64]:
        """Sorted distinct ids in a staging table."""
        query = sql.SQL("select distinct {0} from {1} order by {0}").format(sql.Identifier(column), self.staging(table))
        return np.array([row[0] for row in fetch(self.connection, query)], dtype=np.int64)

    def stage(self, spec: TableSpec, path: Path) -> FileReport:
        """Bring a file into its staging table; rows at fault go to ``rejected_rows``.

        Raises:
            SourceError: the file lacks a required column.
        """
        reader = CsvReader(path)
        try:
            report = self._stage(spec, reader)
        finally:
            reader.close()
        self._reject_duplicates(spec, path, report)
        report.loaded = report.read - report.rejected.total()
        return report

    def _stage(self, spec: TableSpec, reader: CsvReader) -> FileReport:
        if "recorded_at" in reader.header and "recorded_at" in spec.columns:
            spec = replace(spec, required=spec.required | {"recorded_at"})
        if missing := sorted(spec.required - set(reader.header)):
            raise SourceError(
                f"{reader.path.name} has no column {', '.join(missing)}",
                "export it with these columns; nothing was loaded",
            )
        names = [name for name in reader.header if name in spec.columns]
        ignored = tuple(name for name in reader.header if name not in spec.columns)
        report = FileReport(reader.path.name, spec.table, ignored_columns=ignored)
        self.reports.append(report)
        self.columns[spec.table] = names
        self.create_staging(spec.table, {**{name: spec.columns[name] for name in names}, "line": "bigint"})
        progress = Progress("load")
        for batch, malformed in reader.batches():
            done = convert(spec, reader.header, batch, self.subjects, self.visits)
            self.copy(self.staging(spec.table), [*names, "line"], done.good)
            self.reject(report, pl.concat([done.rejected, _frame(malformed)]))
            report.read += len(batch.lines) + len(malformed)
            report.without_visit += done.without_visit
            progress.report(report.read, f"rows of {reader.path.name}")
        return report

    def create_staging(self, table: str, columns: Mapping[str, str]) -> None:
        """Make the staging table of a table, with columns of the given Postgres types."""
        fields = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
        self.run(sql.SQL("create unlogged table {} ({})").format(self.staging(table), sql.SQL(", ").join(fields)))
        self.staged.append(table)

    def copy(self, table: sql.Identifier, names: Sequence[str], rows: pl.DataFrame) -> None:
        """Append the named columns of some rows to a table."""
        if rows.is_empty():
            return
        text = rows.select(names).write_csv(include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f")
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        command = sql.SQL("copy {} ({}) from stdin (format csv)").format(table, columns)
        with self.connection.cursor() as cursor:
            cursor.copy_expert(command.as_string(self.connection), io.StringIO(text))

    def reject(self, report: FileReport, rows: pl.DataFrame) -> None:
        """Set rows aside (``line``, ``reason``, ``raw``) and count them."""
        report.rejected.update(dict(rows["reason"].value_counts().iter_rows()))
        set_aside = rows.select(
            pl.lit(self.loader).alias("loader"),
            pl.lit(report.file).alias("file"),
            "line",
            "reason",
            # Postgres stores no NUL byte; an empty row must not become null
            pl.col("raw").str.strip_chars_end("\r\n").str.replace_all("\x00", "␀", literal=True),
        )
        self.copy(self.table("rejected_rows"), set_aside.columns, set_aside)

    def _reject_duplicates(self, spec: TableSpec, path: Path, report: FileReport) -> None:
        if not spec.key:
            return
        key = [name for name in (*spec.key, "recorded_at") if name in self.columns[spec.table]]
        statement = sql.SQL(DUPLICATES).format(
            key=sql.SQL(", ").join(map(sql.Identifier, key)), staging=self.staging(spec.table)
        )
        lines = {row[0] for row in fetch(self.connection, statement)}
        if lines:
            self.reject(report, _raw_lines(path, lines, f"{', '.join(key)} occurs before"))

    def insert(
        self, table: str, rows: sql.Composable, names: Sequence[str], values: Mapping[str, sql.Composable] | None = None
    ) -> int:
        """Insert the named columns of a relation, some of them as other expressions over it."""
        values = values or {}
        return self.run(
            sql.SQL("insert into {} ({}) select {} from {} t").format(
                self.table(table),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(values.get(name, sql.Identifier("t", name)) for name in names),
                rows,
            )
        )

    def drop_staging(self) -> None:
        for name in self.staged:
            self.run(sql.SQL("drop table {}").format(self.staging(name)))

    def record(self, layout: str, digest: str, history: str, summary: Mapping[str, object]) -> None:
        """Write down what was loaded."""
        statement = sql.SQL(
            "insert into {} (loader, layout, digest, history, summary) values (%s, %s, %s, %s, %s)"
        ).format(self.table("loads"))
        self.run(statement, (self.loader, layout, digest, history, json.dumps(summary)))


def _frame(malformed: Sequence[Malformed]) -> pl.DataFrame:
    rows = {
        "line": [row.line for row in malformed],
        "reason": [row.reason for row in malformed],
        "raw": [row.raw for row in malformed],
    }
    return pl.DataFrame(rows, schema={"line": pl.Int64, "reason": pl.String, "raw": pl.String})


def _raw_lines(path: Path, lines: set[int], reason: str) -> pl.DataFrame:
    """The text of some lines, read again: staging does not keep it."""
    found = []
    reader = CsvReader(path)
    try:
        for batch, _ in reader.batches(BATCH):
            found += [Malformed(n, reason, raw) for n, raw in zip(batch.lines, batch.raw, strict=True) if n in lines]
    finally:
        reader.close()
    return _frame(found)
