"""Rows of the source as Arrow batches of bounded size, through ADBC and COPY."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi
import pyarrow as pa
from psycopg2 import sql
from psycopg2.extensions import make_dsn

from ml.common.db import Connection, fetch
from ml.common.errors import SourceError
from ml.extraction.schema import EVENT_SCHEMA
from ml.settings import Role, get_settings
from ml.sources.mapping import CodeMapping, code_mapping

BYTES_PER_ROW = 128  # of an event in COPY's binary form, for the driver's batch size, which is in bytes
IN_HAND = 4  # batches that wait for the writer, by stream

# No way to write. A query that streams out of one process gains nothing from the server's own workers and its compiler:
# to hand rows over between them costs more (1.4 instead of 2.2 µs of the server a row without them).
SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        "timezone=UTC",
        "default_transaction_read_only=on",
        "default_transaction_isolation=repeatable\\ read",
        "jit=off",
        "max_parallel_workers_per_gather=0",
    )
)


@contextmanager
def open_stream(join: str) -> Iterator[Any]:
    """An ADBC connection as the extract role; one read-only transaction.

    Args:
        join: what ``share_snapshot`` gave for another transaction: this one sees what that one sees.

    Raises:
        SourceError: the server cannot be reached.
    """
    dsn = make_dsn(get_settings().dsn(Role.EXTRACT), options=SESSION, client_encoding="UTF8")
    try:
        connection = adbc_driver_postgresql.dbapi.connect(dsn)
    except adbc_driver_manager.Error:
        raise SourceError("cannot connect to the source", "check that it runs and VIGIL_EXTRACT_DSN is right") from None
    with connection:
        with connection.cursor() as cursor:
            cursor.execute(join)
        yield connection


def share_snapshot(connection: Connection) -> str:
    """The statement by which another transaction sees the rows that this one (REPEATABLE READ) sees."""
    name = fetch(connection, "select pg_export_snapshot()")[0][0]
    return sql.SQL("set transaction snapshot {}").format(sql.Literal(name)).as_string(connection)


def read_kinds(queries: Mapping[str, str], join: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Batches of all kinds of record, several kinds at a time (``settings.streams``), in no order.

    Args:
        queries: event query by kind.
        join: see ``open_stream``: all streams see the same rows.

    Raises:
        SourceError: as ``stream_events``.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for kind in queries:
        waiting.put(kind)
    streams = min(get_settings().streams, len(queries))
    hand: queue.Queue[tuple[str, pa.RecordBatch] | Exception | None] = queue.Queue(IN_HAND * streams)
    given_up = threading.Event()

    def give(item: tuple[str, pa.RecordBatch] | Exception | None) -> None:
        while not given_up.is_set():
            try:
                return hand.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            with open_stream(join) as stream:
                while not given_up.is_set():
                    kind = waiting.get_nowait()
                    for batch in stream_events(stream, kind, queries[kind]):
                        give((kind, batch))
        except queue.Empty:
            give(None)
        except Exception as error:  # it belongs to whoever waits for the rows
            give(error)

    workers = [threading.Thread(target=work, name=f"extract-{n}", daemon=True) for n in range(streams)]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            while (item := hand.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
    finally:
        given_up.set()


def stream_events(connection: Any, kind: str, query: str) -> Iterator[pa.RecordBatch]:
    """Batches of events in ``EVENT_SCHEMA``; about ``settings.batch_rows`` rows each.

    Raises:
        SourceError: the source failed; named by SQLSTATE alone, since a message may quote a patient's value.
    """
    hint = str(get_settings().batch_rows * BYTES_PER_ROW)
    mapping = code_mapping(get_settings())
    try:
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": hint})
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                yield _as_events(batch, mapping)
    except (adbc_driver_manager.Error, pa.ArrowInvalid, OSError) as error:
        raise _source_error(kind, error) from None


def _as_events(batch: pa.RecordBatch, mapping: CodeMapping | None) -> pa.RecordBatch:
    events = pa.RecordBatch.from_arrays(
        [batch.column(field.name).cast(field.type) for field in EVENT_SCHEMA], schema=EVENT_SCHEMA
    )
    events.validate(full=True)  # text that is no UTF-8: a server with encoding SQL_ASCII passes any byte
    return _mapped(events, mapping) if mapping else events


def _mapped(events: pa.RecordBatch, mapping: CodeMapping) -> pa.RecordBatch:
    """The events with their codes mapped, each distinct code once."""
    place = EVENT_SCHEMA.get_field_index("code")
    coded = events.column(place).dictionary_encode()
    codes = mapping.apply(coded.dictionary).take(coded.indices)
    return events.set_column(place, EVENT_SCHEMA.field(place), codes)


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
