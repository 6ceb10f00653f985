"""Whether the labels of a task can carry an evaluation, and if not, why: the task is set aside, the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml.cohorts.splits import SHARES, Split, overlaps

MINIMUM_EVENTS = 30  # as many without: below it no interval says anything


@dataclass(frozen=True)
class SplitCount:
    """Of one split: subjects at risk, rows (a subject at an index day), events, and subjects with an event."""

    split: Split
    subjects: int
    rows: int
    events: int
    cases: int


@dataclass(frozen=True)
class Evaluability:
    """What a task's labels hold.

    Attributes:
        task: its name.
        counts: one entry per split, in the order of `SHARES`. Rows whose window is not over are not counted.
        reason: why no evaluation can stand on the labels; None where one can.
    """

    task: str
    counts: tuple[SplitCount, ...]
    reason: str | None

    @property
    def evaluable(self) -> bool:
        return self.reason is None

    @property
    def events(self) -> int:
        """Events of all splits."""
        return sum(count.events for count in self.counts)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evaluability:
        """From the JSON of a manifest."""
        counts = tuple(SplitCount(**count) for count in values["counts"])
        return cls(values["task"], counts, values["reason"])


def evaluability(task: str, times: pl.DataFrame, judged: Split = "held_out") -> Evaluability:
    """Judge a task's labels.

    Args:
        task: its name.
        times: ``subject_id``, ``event``, ``complete``, ``before_birth``, ``split`` of each row (`task_times`).
        judged: the split that an evaluation is made on.
    """
    complete = times.filter(pl.col("complete"))
    counts = tuple(_count(complete.filter(pl.col("split") == split), split) for split, _ in SHARES)
    found = next(count for count in counts if count.split == judged)
    return Evaluability(task, counts, _reason(times, complete, found))


def _reason(times: pl.DataFrame, complete: pl.DataFrame, judged: SplitCount) -> str | None:
    strange, overlapping = overlaps(times)
    early = int(times["before_birth"].sum())
    whom = f"{judged.split.replace('_', '-')} patients"
    reasons = (
        (overlapping, f"subjects in more than one split: {overlapping}"),
        (strange, f"rows in no split: {strange}"),
        (early, f"labels that precede birth: {early}"),
        (times.is_empty(), "nobody is at risk"),
        (complete.is_empty(), "no window is over yet"),
        (not judged.rows, f"nobody is at risk among {whom}"),
        (not judged.events, f"no events among {whom}"),
        (judged.events == judged.rows, f"nothing but events among {whom}"),
        (judged.events < MINIMUM_EVENTS, f"fewer than {MINIMUM_EVENTS} events among {whom}"),
        (judged.rows - judged.events < MINIMUM_EVENTS, f"fewer than {MINIMUM_EVENTS} {whom} without an event"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _count(rows: pl.DataFrame, split: Split) -> SplitCount:
    events = rows.filter(pl.col("event"))
    subjects, cases = rows["subject_id"].n_unique(), events["subject_id"].n_unique()
    return SplitCount(split, subjects, rows.height, events.height, cases)
