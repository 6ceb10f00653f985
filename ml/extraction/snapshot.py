"""A snapshot: the event log as of a day, with counts and a digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True)
class Snapshot:
    """The manifest of all partitions up to a day; it exists only if quality passed.

    Attributes:
        as_of: the day.
        digest: SHA-256 over the canonically sorted rows of the view, hexadecimal.
        partitions: names of the partitions, oldest first.
        rows: events in the view, by code vocabulary (``ICD10CM``, ``ATC``, …).
        subjects: subjects in the view.
        shards: number of shards the partitions are split into.
        former_digests: digests it had before patients were erased from it, oldest first.
    """

    as_of: date
    digest: str
    partitions: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)
    subjects: int = 0
    shards: int = 1
    former_digests: tuple[str, ...] = ()
