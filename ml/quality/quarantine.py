"""Rows at fault: in Postgres for the people who can correct them, as keys beside the partition for the view."""

from __future__ import annotations

import io
from datetime import date

import polars as pl
import psycopg2
from upath import UPath

from ml.common.db import connect, execute
from ml.common.errors import SourceError
from ml.common.paths import new_file
from ml.extraction.log import QUARANTINE
from ml.settings import Role

ROW = ["kind", "expectation", "severity", "source_key", "recorded_at", "subject_id", "event_time", "code", "reason"]
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.String,
    "expectation": pl.String,
    "severity": pl.String,
    "source_key": pl.String,
    "recorded_at": pl.Datetime("us"),
    "subject_id": pl.Int64,
    "event_time": pl.Datetime("us"),
    "code": pl.String,
    "reason": pl.String,
}
DELETE = "delete from restricted.quarantine where as_of = %s"
COPY = """
copy restricted.quarantine
    (as_of, kind, expectation, severity, source_key, recorded_at, subject_id, event_time, code, reason)
from stdin (format csv)
"""


def write_rows(as_of: date, rows: pl.DataFrame) -> None:
    """Replace the day's rows in ``restricted.quarantine``.

    Raises:
        SourceError: the database cannot be reached or refuses.
    """
    distinct = rows.select(ROW).unique(["expectation", "source_key", "recorded_at"], keep="first", maintain_order=True)
    text = distinct.select(pl.lit(as_of), *ROW).write_csv(
        include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f", quote_style="necessary"
    )
    try:
        with connect(Role.QUALITY) as connection:
            execute(connection, DELETE, (as_of,))
            with connection.cursor() as cursor:
                cursor.copy_expert(COPY, io.StringIO(text))
    except psycopg2.Error as error:  # its message may quote a row
        raise SourceError(
            f"cannot write restricted.quarantine (SQLSTATE {error.pgcode or 'unknown'})",
            "check the migrations and grants of Vigil's database (vigil db migrate)",
        ) from None


def write_keys(directory: UPath, rows: pl.DataFrame) -> int:
    """Write the keys that the view leaves out; how many. No file where there are none."""
    path = directory / QUARANTINE
    keys = (
        rows.select("subject_id", "source_key", "recorded_at").unique().sort("subject_id", "source_key", "recorded_at")
    )
    if keys.is_empty():
        path.unlink(missing_ok=True)
    else:
        with new_file(path) as file:
            keys.write_parquet(file)  # type: ignore[arg-type]
    return keys.height


def no_rows() -> pl.DataFrame:
    """An empty quarantine."""
    return pl.DataFrame(schema=SCHEMA)
