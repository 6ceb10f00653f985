"""The audit: staged rows are counted in the database, whoever made them. Nothing is attached that fails it."""

from __future__ import annotations

from psycopg2 import sql

from ml.common.db import connect
from ml.common.errors import RefusedError
from ml.publication.fences import SQL
from ml.publication.staging import staging_name
from ml.publication.types import Fence, Origin, PublishedTable
from ml.settings import Role, get_settings

_TOTALS = ("rows", "subjects")  # compared with what was to be published; every other column must be 0


def audit(table: PublishedTable, fence: Fence, origin: Origin, release_id: str, expected: dict[str, int]) -> None:
    """Count what is wrong with the staged rows.

    Args:
        expected: ``rows``, and where the table has them ``subjects``.

    Raises:
        RefusedError: something is; counts only are named, no value.
    """
    counts = _count(table, fence, origin, release_id)
    wrong = [f"{counts[name]:,} {name} instead of {n:,}" for name, n in expected.items() if counts[name] != n]
    wrong += [f"{n:,} rows {name.replace('_', ' ')}" for name, n in counts.items() if name not in _TOTALS and n]
    if wrong:
        raise RefusedError(
            f"the audit refused {table.name} of {origin.as_of} ({'; '.join(wrong)})",
            "nothing was published; correct the stage that made these rows and clear the publish task",
        )


def _count(table: PublishedTable, fence: Fence, origin: Origin, release_id: str) -> dict[str, int]:
    query = sql.SQL((SQL / f"audit_{table.name}.sql").read_text()).format(
        staging=sql.Identifier("published", staging_name(fence))
    )
    values = {
        "release_id": release_id,
        "as_of": origin.as_of,
        "snapshot_digest": origin.snapshot_digest,
        "model_version": origin.model_version,
        "min_cell": get_settings().min_cell,
        **origin.facts,
    }
    with connect(Role.PUBLISH, readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        (row,) = cursor.fetchall()
        return {column.name: int(n) for column, n in zip(cursor.description or (), row, strict=True)}
