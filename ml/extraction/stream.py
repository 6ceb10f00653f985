"""Rows of the source as Arrow batches of bounded size, through ADBC and COPY."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa
from psycopg2.extensions import make_dsn

from ml.common.errors import SourceError
from ml.extraction.schema import EVENT_SCHEMA
from ml.settings import Role, get_settings

BYTES_PER_ROW = 128  # of an event in COPY's binary form, for the driver's batch size, which is in bytes

# One snapshot of the source for all kinds of record, and no way to write.
SESSION = "-c timezone=UTC -c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"


@contextmanager
def open_stream() -> Iterator[Any]:
    """An ADBC connection as the extract role; one read-only transaction.

    Raises:
        SourceError: the server cannot be reached.
    """
    dsn = make_dsn(get_settings().dsn(Role.EXTRACT), options=SESSION, client_encoding="UTF8")
    try:
        connection = adbc_driver_postgresql.dbapi.connect(dsn)
    except adbc_driver_manager.Error:
        raise SourceError("cannot connect to the source", "check that it runs and VIGIL_EXTRACT_DSN is right") from None
    with connection:
        yield connection


def stream_events(connection: Any, kind: str, query: str) -> Iterator[pa.RecordBatch]:
    """Batches of events in ``EVENT_SCHEMA``; about ``settings.batch_rows`` rows each.

    Raises:
        SourceError: the source failed; named by SQLSTATE alone, since a message may quote a patient's value.
    """
    hint = str(get_settings().batch_rows * BYTES_PER_ROW)
    try:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": hint})
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                yield _as_events(batch)
    except (adbc_driver_manager.Error, pa.ArrowInvalid, OSError) as error:
        raise _source_error(kind, error) from None


def _as_events(batch: pa.RecordBatch) -> pa.RecordBatch:
    events = pa.RecordBatch.from_arrays(
        [batch.column(field.name).cast(field.type) for field in EVENT_SCHEMA], schema=EVENT_SCHEMA
    )
    events.validate(full=True)  # text that is no UTF-8: a server with encoding SQL_ASCII passes any byte
    return events


def _source_error(kind: str, error: Exception) -> SourceError:
    state = getattr(error, "sqlstate", None) or ""
    text = str(error)
    if state in ("22021", "22P05") or "UTF8" in text or "UTF-8" in text:
        return SourceError(
            f"records of kind '{kind}' hold text that is not UTF-8",
            "correct the text in the source, or recode its database to UTF8",
        )
    if state.startswith(("08", "57P")) or "connection" in text.lower():
        return SourceError(
            f"the connection to the source was lost while reading '{kind}'",
            "run the extraction again; nothing was kept",
        )
    return SourceError(
        f"reading '{kind}' from the source failed (SQLSTATE {state or 'unknown'})",
        "look at the source's own log; nothing was kept",
    )
