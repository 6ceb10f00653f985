"""Claims: of two runs that stand for the same day, one works on and the other is refused.

A run that begins draws a token and takes the day from whoever has it. A run that lost its day this way gets it back
only when the winner is over: so a retried, cleared or late task never takes a day from a run that is at work, and a
task of an old run can be cleared at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import RefusedError
from ml.settings import Role

log = logging.getLogger(__name__)

_ALONE = "select pg_advisory_xact_lock(hashtextextended('vigil claim ' || %s || ' ' || %s::date, 0))"
_TOGETHER = "select pg_advisory_xact_lock_shared(hashtextextended('vigil claim ' || %s || ' ' || %s::date, 0))"
_CLAIMS = "select run_id, token from runs.claims where pipeline = %s and as_of = %s"
_HOLDER = _CLAIMS + " order by token desc limit 1"
_TAKE = """
insert into runs.claims (pipeline, as_of, run_id, token)
values (%s, %s, %s, nextval('runs.claim_tokens'))
on conflict (pipeline, as_of, run_id) do update set token = excluded.token, claimed_at = now()
returning token
"""
_TRY_TURN = "select pg_try_advisory_lock(hashtextextended('vigil turn ' || %s, 0))"


@dataclass(frozen=True)
class Claim:
    """The right of one run to work on a pipeline's day, until another run takes it."""

    pipeline: str
    as_of: date
    run_id: str
    token: int


def hold(pipeline: str, as_of: date, run_id: str, is_over: Callable[[str], bool]) -> Claim:
    """Take a day, or keep it.

    Args:
        run_id: of the run that asks. One that never asked before takes the day, whoever has it.
        is_over: whether the run of an id has ended or is gone; asked of the holder only, where it took the day away
            from this run.

    Raises:
        RefusedError: another run took the day and is at work.
    """
    over: Claim | None = None
    while True:
        holder = _ask(pipeline, as_of, run_id, over)
        if holder.run_id == run_id:
            return holder
        if not is_over(holder.run_id):  # asked outside a transaction: Airflow may be slow to answer
            raise _refused(pipeline, as_of, holder.run_id)
        over = holder


def require_held(connection: Connection, claim: Claim) -> None:
    """Check a claim, and keep rivals waiting until this transaction ends.

    Raises:
        RefusedError: another run, or a later start of this one, has taken the day.
    """
    execute(connection, _TOGETHER, (claim.pipeline, claim.as_of))
    holder = fetch(connection, _HOLDER, (claim.pipeline, claim.as_of))
    if not holder or holder[0][1] != claim.token:
        raise _refused(claim.pipeline, claim.as_of, holder[0][0] if holder else "unknown")


def _ask(pipeline: str, as_of: date, run_id: str, over: Claim | None) -> Claim:
    """Take the day, if this run never had it or the holder is ``over``; who holds it then."""
    with connect(Role.QUALITY) as connection:
        execute(connection, _ALONE, (pipeline, as_of))
        known = dict(fetch(connection, _CLAIMS, (pipeline, as_of)))
        holder = max(known, key=lambda name: known[name], default=None)
        if holder is not None and (holder == run_id or run_id in known):
            found = Claim(pipeline, as_of, holder, known[holder])
            if holder == run_id or found != over:
                return found
        ((token,),) = fetch(connection, _TAKE, (pipeline, as_of, run_id))
    log.info("this run holds %s of %s (token %d)", as_of, pipeline, token)
    return Claim(pipeline, as_of, run_id, token)


def _refused(pipeline: str, as_of: date, rival: str) -> RefusedError:
    return RefusedError(
        f"another run of {pipeline} for {as_of} began later and holds the day ({rival})",
        "nothing to do if that run succeeds; else clear this task once it has ended",
    )


@contextmanager
def turn(name: str, patience: float = 3600.0, every: float = 1.0) -> Iterator[None]:
    """Wait until no other run does what ``name`` says, and do it alone.

    Nights of different days may run at once; where they write the same thing they take turns instead of refusing
    each other. The turn ends with the block, or with the process.

    Args:
        patience: seconds to wait.

    Raises:
        RefusedError: it did not come in time.
    """
    deadline = time.monotonic() + patience
    with connect(Role.QUALITY) as connection:
        connection.autocommit = True  # an idle transaction would be in vacuum's way for as long as we work
        waiting = False
        while not fetch(connection, _TRY_TURN, (name,))[0][0]:
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"another run has held '{name}' for {patience:.0f} s",
                    "wait until it has ended, then clear this task",
                )
            if not waiting:
                log.info("waiting for another run that holds '%s'", name)
            waiting = True
            time.sleep(every)
        yield
