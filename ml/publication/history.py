"""Which release answers for which day, and what differs between two of them. Counts and means only, no row.

Every publication is kept in ``published.publications``, one that found its rows published already included; the last
one of a table and day names the release that answers for that day, whether or not it is current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ml.common.db import Connection, connect, fetch
from ml.publication.fences import SQL
from ml.publication.types import TABLES, TableName
from ml.settings import Role

_ANSWERS = """
select r.table_name, r.as_of, r.release_id::text, p.run_id, p.published_at, r.model_version, r.snapshot_digest,
       r.row_count, coalesce(c.release_id = r.release_id, false)
from published.publications p
join published.releases r using (release_id)
left join published.current_releases c using (table_name)
where r.as_of between %s and %s order by p.token
"""
_MADE = {
    "risk_scores": "select model_name, scored_at from published.risk_scores where release_id = %s::uuid limit 1",
    "disease_interconnections": "select null, computed_at from published.disease_interconnections"
    " where release_id = %s::uuid limit 1",
}


@dataclass(frozen=True)
class Answer:
    """One publication of a day.

    Attributes:
        release_id: the rows; two publications of the same rows share it.
        run_id: the run that published, or the person who rolled back.
        current: whether readers see it now.
    """

    table: TableName
    as_of: date
    release_id: str
    run_id: str
    published_at: datetime
    model_version: int | None
    snapshot_digest: str
    rows: int
    current: bool


@dataclass(frozen=True)
class Made:
    """What made a release's rows, and when; the model is None for interconnections, all is None for no rows."""

    model_name: str | None
    made_at: datetime | None


@dataclass(frozen=True)
class PartDiff:
    """How the rows of an outcome or a method differ.

    Attributes:
        part: the outcome or the method.
        changed: rows that are in both and differ.
        mean_change: mean absolute difference of the risk or the weight, over rows that have one in both.
    """

    part: str
    rows_before: int
    rows_after: int
    added: int
    removed: int
    changed: int
    mean_change: float | None


@dataclass(frozen=True)
class DayDiff:
    """How the answer for a day differs from the one before a moment.

    Attributes:
        before: the last publication before that moment, None if there was none.
        after: the last publication since, None if the day was not published again.
    """

    table: TableName
    as_of: date
    before: Answer | None
    after: Answer | None
    before_made: Made | None
    after_made: Made | None
    parts: tuple[PartDiff, ...]

    @property
    def outcome(self) -> str:
        """In one or two words: ``not published``, ``kept``, ``first``, ``same rows``, ``changed``."""
        if self.after is None:
            return "not published" if self.before is None else "kept"
        if self.before is None:
            return "first"
        return "same rows" if self.before.release_id == self.after.release_id else "changed"


def answers(first: date, last: date) -> list[Answer]:
    """Publications of the days from ``first`` to ``last``, oldest first."""
    with connect(Role.READ, readonly=True) as connection:
        return [Answer(*row) for row in fetch(connection, _ANSWERS, (first, last))]


def compare_days(days: Sequence[date], since: datetime) -> list[DayDiff]:
    """What was published of each day and table before a moment, and what since.

    Reads retained releases, which readers do not see; so it is done as role ``publish``.

    Args:
        since: aware; publications from this moment on are the new ones.
    """
    found = answers(min(days), max(days))
    with connect(Role.PUBLISH, readonly=True) as connection:
        return [_compare(connection, name, day, found, since) for day in days for name in TABLES]


def _compare(connection: Connection, name: str, day: date, found: list[Answer], since: datetime) -> DayDiff:
    own = [answer for answer in found if answer.table == name and answer.as_of == day]
    before = next((answer for answer in reversed(own) if answer.published_at < since), None)
    after = next((answer for answer in reversed(own) if answer.published_at >= since), None)
    parts: tuple[PartDiff, ...] = ()
    if after is not None and (before is None or before.release_id != after.release_id):
        values = {"before": before.release_id if before else None, "after": after.release_id}
        query = (SQL / f"compare_{name}.sql").read_text()
        parts = tuple(PartDiff(*row) for row in fetch(connection, query, values))
    made = [_made(connection, answer) if answer else None for answer in (before, after)]
    return DayDiff(TABLES[name].name, day, before, after, made[0], made[1], parts)


def _made(connection: Connection, answer: Answer) -> Made:
    rows = fetch(connection, _MADE[answer.table], (answer.release_id,))
    return Made(*rows[0]) if rows else Made(None, None)
