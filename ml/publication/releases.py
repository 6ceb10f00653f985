"""Stage, audit, publish: how rows become a release, and a release the current one."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any

import pyarrow as pa
from psycopg2 import DataError, IntegrityError, sql

from ml.common.claims import Claim
from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.common.files import sha256_bytes
from ml.publication import staging
from ml.publication.audit import audit
from ml.publication.fences import SQL, acquire, overtaken, require_held
from ml.publication.types import TABLES, Fence, Origin, PublishedTable, Release
from ml.settings import Role

log = logging.getLogger(__name__)

_RELEASE = """
select r.release_id::text, r.table_name, r.as_of, r.run_id, r.token, r.model_version, r.snapshot_digest, r.row_count,
       r.rows_digest, r.released_at, coalesce(c.release_id = r.release_id, false)
from published.releases r left join published.current_releases c using (table_name)
"""
_SAME_ROWS = _RELEASE + "where r.table_name = %s and r.as_of = %s and r.rows_digest = %s order by r.token limit 1"
_BY_ID = _RELEASE + "where r.release_id = %s"
_ALL = _RELEASE + "order by r.released_at desc, r.token desc"
_BEFORE_CURRENT = (
    _RELEASE
    + """
join published.releases now_current on now_current.release_id = c.release_id
where r.table_name = %s and (r.as_of, r.token) < (now_current.as_of, now_current.token)
order by r.as_of desc, r.token desc limit 1
"""
)
_INSERT = """
insert into published.releases (release_id, table_name, as_of, run_id, token, model_version, snapshot_digest, row_count,
                                rows_digest)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PUBLISHED = """
insert into published.publications (token, release_id, run_id)
select token, %s, holder from published.fences where token = %s on conflict (token) do nothing
"""


def release(
    table: PublishedTable, rows: pa.Table, origin: Origin, expected: dict[str, int], claim: Claim | None = None
) -> Release:
    """Publish rows: a release of their own, current unless a later day is. Idempotent.

    Args:
        rows: the table's columns; other columns are not looked at.
        expected: totals that the audit must find, besides the number of rows.
        claim: of the run on the day, where its pipeline takes claims.

    Raises:
        RefusedError: the audit refuses the rows, or another run or publication of the day has started since.
    """
    fence = acquire(table.name, origin.as_of, origin.run_id, claim)
    with connect(Role.PUBLISH) as alive:
        staging.hold(alive, fence)
        for name in staging.drop_orphans():
            log.info("dropped %s, left by a publication that died", name)
        content = staging.to_csv(table, rows)
        found = find_same(table, origin, sha256_bytes(content))
        made = found or _make(table, fence, origin, content, {"rows": rows.num_rows, **expected})
        return replace(move_pointer(made, fence), new=found is None)


def find_same(table: PublishedTable, origin: Origin, rows_digest: str) -> Release | None:
    """The release that holds exactly these rows for this day, if there is one."""
    with connect(Role.PUBLISH, readonly=True) as connection:
        rows = fetch(connection, _SAME_ROWS, (table.name, origin.as_of, rows_digest))
    return Release(*rows[0]) if rows else None


def _make(table: PublishedTable, fence: Fence, origin: Origin, content: bytes, expected: dict[str, int]) -> Release:
    release_id = str(uuid.uuid4())
    try:
        staging.stage(table, fence, origin, release_id, content)
        audit(table, fence, origin, release_id, expected)
        return attach(table, fence, origin, release_id, expected["rows"], sha256_bytes(content))
    except (DataError, IntegrityError) as error:  # whose detail would show the row
        staging.drop(fence)
        raise RefusedError(
            f"the database refused rows of {table.name} of {origin.as_of} ({type(error).__name__})",
            "nothing was published; correct the stage that made these rows and clear the publish task",
        ) from None
    except BaseException:
        staging.drop(fence)
        raise


def attach(
    table: PublishedTable, fence: Fence, origin: Origin, release_id: str, row_count: int, rows_digest: str
) -> Release:
    """Make the staged table a partition, and write the release's row; both or neither.

    Raises:
        RefusedError: the fence is another's.
    """
    staged = staging.staging_name(fence)
    values: tuple[Any, ...] = (release_id, table.name, origin.as_of, origin.run_id, fence.token)
    values += (origin.model_version, origin.snapshot_digest, row_count, rows_digest)
    with connect(Role.PUBLISH) as connection, connection.cursor() as cursor:
        require_held(connection, fence)
        cursor.execute(
            sql.SQL("alter table {parent} attach partition {staged} for values in ({release})").format(
                parent=sql.Identifier("published", table.name),
                staged=sql.Identifier("published", staged),
                release=sql.Literal(release_id),
            )
        )
        cursor.execute(
            sql.SQL("alter table {staged} rename to {name}").format(
                staged=sql.Identifier("published", staged),
                name=sql.Identifier(staging.partition_name(table, origin.as_of, release_id)),
            )
        )
        execute(connection, _INSERT, values)
    with connect(Role.PUBLISH, readonly=True) as connection:
        return _by_id(connection, release_id)


def _by_id(connection: Connection, release_id: str) -> Release:
    rows = fetch(connection, _BY_ID, (release_id,))
    if not rows:
        raise NotFoundError(f"there is no release {release_id}", "see 'vigil show releases'")
    return Release(*rows[0])


def move_pointer(made: Release, fence: Fence, *, backwards: bool = False) -> Release:
    """Make a release its day's answer, and the current one unless a later day is current.

    Args:
        backwards: an explicit command may go back to an earlier day.

    Raises:
        RefusedError: the fence is another's.
    """
    values = {"release_id": made.release_id, "token": fence.token, "backwards": backwards}
    with connect(Role.PUBLISH) as connection:
        moved = fetch(connection, (SQL / "move_pointer.sql").read_text(), values)
        if not moved:
            try:
                require_held(connection, fence)
            except RefusedError:
                raise overtaken(fence) from None
        execute(connection, _PUBLISHED, (made.release_id, fence.token))
        return _by_id(connection, made.release_id)


def rollback(table_name: str, holder: str) -> Release:
    """Make the release before the current one current: the newest of an earlier day, or an earlier one of the same.

    Raises:
        NotFoundError: there is no such table, or no earlier release.
    """
    if table_name not in TABLES:
        raise NotFoundError(f"there is no published table '{table_name}'", f"use one of: {', '.join(TABLES)}")
    with connect(Role.PUBLISH, readonly=True) as connection:
        rows = fetch(connection, _BEFORE_CURRENT, (table_name,))
    if not rows:
        raise NotFoundError(f"{table_name} has no release before the current one", "see 'vigil show releases'")
    target = Release(*rows[0])
    return move_pointer(target, acquire(target.table, target.as_of, holder), backwards=True)


def all_releases() -> list[Release]:
    """Every release, newest first."""
    with connect(Role.READ, readonly=True) as connection:
        return [Release(*row) for row in fetch(connection, _ALL)]
