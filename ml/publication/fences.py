"""Fences: of two publications of the same table and day, only the one that came last may finish.

A token is drawn from a sequence on acquiring. Whoever holds an older one (a task that was given up for dead and woke
up, or was delivered twice) is refused when it attaches its rows and when it moves the pointer.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from ml.common.claims import Claim
from ml.common.claims import require_held as require_claim
from ml.common.db import Connection, connect, fetch
from ml.common.errors import RefusedError
from ml.publication.types import Fence, TableName
from ml.settings import Role

SQL = Path(__file__).parent / "sql"
_HELD = "select token from published.fences where table_name = %s and as_of = %s for share"


def acquire(table: TableName, as_of: date, holder: str, claim: Claim | None = None) -> Fence:
    """Take the right to publish a table's day away from whoever has it.

    Args:
        claim: of the run on the day, where its pipeline takes claims. A run that lost its day draws no token, so it
            cannot come after the run that took it.

    Raises:
        RefusedError: another run has taken the day.
    """
    with connect(Role.PUBLISH) as connection:
        if claim is not None:
            require_claim(connection, claim)
        query = (SQL / "acquire_fence.sql").read_text()
        rows = fetch(connection, query, {"table": table, "as_of": as_of, "holder": holder})
    return Fence(table, as_of, int(rows[0][0]))


def require_held(connection: Connection, fence: Fence) -> None:
    """Check the token, and keep rivals waiting until this transaction ends.

    Raises:
        RefusedError: another publication has taken the fence.
    """
    rows = fetch(connection, _HELD, (fence.table, fence.as_of))
    if not rows or rows[0][0] != fence.token:
        raise overtaken(fence)


def overtaken(fence: Fence) -> RefusedError:
    """The error of a publication that was overtaken."""
    return RefusedError(
        f"another publication of {fence.table} of {fence.as_of} has started since (token {fence.token} is stale)",
        "nothing to do if that one succeeds; else clear the publish task",
    )
