"""Staging: rows in a table of their own that nobody reads yet."""

from __future__ import annotations

import io
from contextlib import suppress
from datetime import date

import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg2 import Error, sql

from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import VigilError
from ml.publication.types import Fence, Origin, PublishedTable
from ml.settings import Role

_PREFIX = "staging_"
_UNATTACHED = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'published' and c.relkind = 'r' and not c.relispartition and c.relname like 'staging\\_%%'
order by 1
"""
_LOCK = "select pg_advisory_xact_lock(hashtextextended('vigil publication ' || %s, 0))"
_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtextextended('vigil publication ' || %s, 0))"


def to_csv(table: PublishedTable, rows: pa.Table) -> bytes:
    """The rows as PostgreSQL's CSV, sorted by key: what is copied, and what the release's digest is of.

    Strings are quoted, nulls are empty, floats are the shortest that read back the same.
    """
    ordered = rows.select(table.columns).sort_by([(name, "ascending") for name in table.key])
    buffer = io.BytesIO()
    pa_csv.write_csv(ordered, buffer, pa_csv.WriteOptions(include_header=True, quoting_style="needed"))
    return buffer.getvalue()


def staging_name(fence: Fence) -> str:
    return f"{_PREFIX}{fence.table}_{fence.as_of:%Y%m%d}_{fence.token}"


def partition_name(table: PublishedTable, as_of: date, release_id: str) -> str:
    return f"{table.name}_{as_of:%Y%m%d}_{release_id[:8]}"


def hold(connection: Connection, fence: Fence) -> None:
    """Show that this publication lives, as long as the connection's transaction does."""
    execute(connection, _LOCK, (str(fence.token),))


def drop_orphans() -> list[str]:
    """Drop staging tables whose publication has died: nobody holds its lock any more."""
    dropped = []
    with connect(Role.PUBLISH) as connection:
        for (name,) in fetch(connection, _UNATTACHED):
            if fetch(connection, _TRY_LOCK, (name.rsplit("_", 1)[-1],))[0][0]:
                _drop(connection, name)
                dropped.append(name)
    return dropped


def drop(fence: Fence) -> None:
    """Drop this publication's staging table; best effort, the next publication drops what is left."""
    with suppress(VigilError, Error), connect(Role.PUBLISH) as connection:
        _drop(connection, staging_name(fence))


def _drop(connection: Connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("drop table if exists {}").format(sql.Identifier("published", name)))


def stage(table: PublishedTable, fence: Fence, origin: Origin, release_id: str, content: bytes) -> None:
    """Copy the rows into a new table, with the published table's checks and the constraint that makes attaching quick.

    Release id and time of making are the columns' defaults: the copied bytes hold neither.
    """
    names = {
        "staging": sql.Identifier("published", staging_name(fence)),
        "parent": sql.Identifier("published", table.name),
        "made": sql.Identifier(table.made_at),
        "release": sql.Literal(release_id),
        "made_at": sql.Literal(origin.made_at),
        "columns": sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        "key": sql.SQL(", ").join(map(sql.Identifier, ("release_id", *table.key))),
    }
    create = """
        create table {staging} (like {parent} including defaults including constraints);
        alter table {staging} alter release_id set default {release}, alter {made} set default {made_at},
            add check (release_id = {release})
    """
    copy = "copy {staging} ({columns}) from stdin with (format csv, header)"
    with connect(Role.PUBLISH) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL(create).format(**names))
        cursor.copy_expert(sql.SQL(copy).format(**names), io.BytesIO(content))
        cursor.execute(sql.SQL("alter table {staging} add primary key ({key})").format(**names))
        cursor.execute(sql.SQL("analyze {staging}").format(**names))
