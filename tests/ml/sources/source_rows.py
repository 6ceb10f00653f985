"""What a source's queries give, asked without extraction."""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple

from ml.common.db import connect, fetch
from ml.settings import Role, get_settings
from ml.sources import SourcePlan, open_source

EVER = date(2500, 1, 1)


class Event(NamedTuple):
    """One row of a kind's query."""

    subject_id: int
    time: Any
    code: str
    numeric_value: float | None
    text_value: str | None
    visit_id: int | None
    recorded_at: Any
    source_key: str
    removed: bool


def plan() -> SourcePlan:
    """The plan of the source that the settings name."""
    settings = get_settings()
    with connect(Role.EXTRACT, readonly=True) as connection:
        return open_source(settings.source).plan(connection, settings.source_schema)


def events(
    kind: str, recorded_from: date | None = None, recorded_to: date = EVER, made: SourcePlan | None = None
) -> list[Event]:
    """Events of a kind of record, by key and time of recording; ``made``: by a plan that was made before."""
    chosen = next(found for found in (made or plan()).kinds if found.kind == kind)
    with connect(Role.EXTRACT, readonly=True) as connection:
        rows = [Event(*row) for row in fetch(connection, chosen.events(recorded_from, recorded_to))]
    return sorted(rows, key=lambda row: (row.source_key, row.recorded_at, row.subject_id or 0))


def codes(kind: str) -> dict[str, str]:
    """Code by source key."""
    return {row.source_key: row.code for row in events(kind)}
