"""One writer of the event log at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
from upath import UPath

from ml.common.db import Connection, connect, fetch
from ml.common.errors import RefusedError, SourceError
from ml.common.files import sha256_bytes
from ml.common.paths import is_local
from ml.extraction.log import log_directory
from ml.settings import Role

Check = Callable[[], None]
_TRY = "select pg_try_advisory_lock(%s)"


@contextmanager
def locked(step: str) -> Iterator[Check]:
    """Hold the event log for one writer, who is let go if the process dies.

    A log on disk is locked there; one in an object store, which knows no locks, by an advisory lock in Vigil's
    database.

    Yields:
        A check that the lock is still held, for the moment before something becomes visible: a lock in the database
        goes with its connection.

    Raises:
        RefusedError: another process holds it.
        SourceError: the database or the object store cannot be reached.
    """
    place = log_directory()
    with _file_lock(step, place) if is_local(place) else _database_lock(step, place) as check:
        try:
            yield check
        except OSError as error:
            if is_local(place):
                raise
            raise SourceError(
                f"the event log at {place} cannot be read or written ({type(error).__name__})",
                "check that the bucket exists, the credentials, and VIGIL_S3_ENDPOINT",
            ) from None


@contextmanager
def _file_lock(step: str, directory: UPath) -> Iterator[Check]:
    path = directory / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(step) from None
        yield lambda: None


@contextmanager
def _database_lock(step: str, place: UPath) -> Iterator[Check]:
    key = int(sha256_bytes(str(place).encode())[:15], 16)
    try:
        with connect(Role.QUALITY) as connection:
            connection.autocommit = True  # an idle transaction would be in vacuum's way for as long as we work
            if not fetch(connection, _TRY, (key,))[0][0]:
                raise _busy(step)
            yield lambda: _ask(connection, step)
    except psycopg2.InterfaceError:  # the connection was gone when the block ended
        raise _lost(step) from None


def _ask(connection: Connection, step: str) -> None:
    try:
        fetch(connection, "select 1")
    except psycopg2.Error:
        raise _lost(step) from None


def _lost(step: str) -> RefusedError:
    return RefusedError(
        f"'{step}' lost the lock on the event log: the connection to Vigil's database broke",
        "run this step again; nothing was committed",
    )


def _busy(step: str) -> RefusedError:
    return RefusedError(
        f"cannot start '{step}': another process is writing the event log",
        "wait until it has ended, then run this step again",
    )
