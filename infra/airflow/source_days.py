"""What a source recorded when, in numbers of rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from ml.common.db import connect, fetch
from ml.settings import Role, get_settings

_SPAN = "select min(t.recorded_at)::date, max(t.recorded_at)::date from {} t"
_ROWS = """
select t.recorded_at::date, count(*) from {} t where t.recorded_at >= %s and t.recorded_at < %s group by 1
"""


class SourceDays:
    """First and last recorded day of the source, and its rows by recorded day; asked for only when needed.

    Args:
        days: the days whose rows may be asked for.
    """

    def __init__(self, days: Sequence[date]) -> None:
        self.first, self.last = min(days), max(days)

    @cached_property
    def span(self) -> tuple[date, date] | None:
        """First and last day on which anything was recorded; None for a source without records.

        Raises:
            SourceError: the source cannot be read.
        """
        found = [(first, last) for first, last in _ask(_SPAN) if first is not None]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None

    @cached_property
    def rows(self) -> dict[date, int]:
        """Rows by recorded day, of the days at hand.

        Raises:
            SourceError: the source cannot be read.
        """
        counts: dict[date, int] = {}
        for day, count in _ask(_ROWS, (self.first, self.last + timedelta(days=1))):
            counts[day] = counts.get(day, 0) + count
        return counts


def _ask(query: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Answers about each relation that events are made of; one from which several kinds are made is asked once."""
    from psycopg2 import sql

    from ml.sources import open_source

    settings = get_settings()
    with connect(Role.EXTRACT, readonly=True) as connection:
        plan = open_source(settings.source).plan(connection, settings.source_schema)
        relations = {repr(kind.relation.versions): kind.relation.versions for kind in plan.kinds}
        return [
            row for relation in relations.values() for row in fetch(connection, sql.SQL(query).format(relation), values)
        ]
