"""Postgres access: one connection per role, errors that hold no password and no row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from ml.common.errors import SourceError
from ml.settings import Role, get_settings

Connection = psycopg2.extensions.connection


@contextmanager
def connect(role: Role, *, readonly: bool = False, isolation: str | None = None) -> Iterator[Connection]:
    """One transaction as ``role``: committed when the block ends well, rolled back otherwise.

    The session speaks UTC.

    Args:
        isolation: of the transaction, if not the server's own.

    Raises:
        SourceError: the server cannot be reached or refuses the role.
    """
    dsn = get_settings().dsn(role)
    try:
        connection = psycopg2.connect(dsn, options="-c timezone=UTC", connect_timeout=10)
    except psycopg2.OperationalError as error:
        where = psycopg2.extensions.parse_dsn(dsn) if dsn else {}
        place = f"{where.get('host', '?')}:{where.get('port', '5432')}/{where.get('dbname', '?')}"
        reason = str(error).strip().splitlines()[-1].split("FATAL:")[-1].strip() if str(error).strip() else "no answer"
        raise SourceError(
            f"cannot connect to Postgres at {place} as role '{role.value}' ({reason})",
            f"check that the server runs (on one machine: vigil stack status), and VIGIL_{role.value.upper()}_DSN",
        ) from None
    try:
        connection.set_session(readonly=readonly, isolation_level=isolation)
        with connection:
            yield connection
    finally:
        connection.close()


def fetch(connection: Connection, query: str | sql.Composable, parameters: Any = None) -> list[tuple[Any, ...]]:
    """All rows of a small query."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


def execute(connection: Connection, query: str | sql.Composable, parameters: Any = None) -> int:
    """Run a statement; the number of rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.rowcount
