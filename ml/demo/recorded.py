"""What the demo hospital's record shows of its people at the end of a day: all that the oracle may look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.demo.people import SITES
from ml.demo.process import START, IntArray, Process, day_of
from ml.demo.simulate import NEVER
from ml.extraction.schema import BIRTH, DEATH

DIAGNOSIS, TEST, VISIT, SITE, WOMAN = "ICD10CM//", "LOINC//", "VISIT//", "SITE//", "GENDER//F"
EPISODE_DAYS = 60  # an acute disease is coded again only while it is fresh, see `ml.demo.records`


@dataclass(frozen=True)
class Recorded:
    """The record of n living people, ordered by subject. Days count from START; positions are those of ``subjects``.

    Attributes:
        today: the first day that the record does not show.
        subjects: (n,) ids. born, entry, last: (n,) days of birth, of the first visit, of the last. sex: (n,) 1 women.
        site: (n,) 0 or 1.
        visits: (n,) days with a visit; routine: (n,) those that no first coding explains.
        codings: (n,) codings; mentions: (n, D) by disease.
        first: (n, D) day of the first coding, NEVER without; episodes: (n, D) codings at least 60 days apart of what
            is acute; fresh: (n, D) days since the last coding.
        later: (n, D) visits after the day of the first coding.
        test_person, test, test_day, value: laboratory tests, positions in ``process.labs``.
    """

    today: int
    subjects: IntArray
    born: IntArray
    entry: IntArray
    last: IntArray
    sex: IntArray
    site: IntArray
    visits: IntArray
    routine: IntArray
    codings: IntArray
    mentions: IntArray
    first: IntArray
    episodes: IntArray
    fresh: IntArray
    later: IntArray
    test_person: IntArray
    test: IntArray
    test_day: IntArray
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.subjects)


def recorded(process: Process, events: pl.DataFrame, day: date) -> Recorded:
    """Read the record off a view.

    Args:
        events: ``subject_id``, ``time``, ``code``, ``numeric_value`` as known at the end of ``day``. Whoever has no
            birth or has died is left out.
    """
    rows = events.with_columns(day=(pl.col("time") - pl.lit(START)).dt.total_days())
    dead = rows.filter(pl.col("code") == DEATH)["subject_id"].implode()
    births = rows.filter((pl.col("code") == BIRTH) & ~pl.col("subject_id").is_in(dead)).sort("subject_id")
    subjects, born = (births[name].to_numpy().astype(np.int64) for name in ("subject_id", "day"))
    rows = rows.filter(pl.col("subject_id").is_in(births["subject_id"].implode()))
    visited = _days(rows.filter(pl.col("code").str.starts_with(VISIT)).select("subject_id", "day").unique(), subjects)
    today, count = day_of(day) + 1, len(subjects)
    entry, last = np.full(count, NEVER), np.full(count, -1)
    np.minimum.at(entry, *visited)
    np.maximum.at(last, *visited)
    entry = np.minimum(entry, today - 1)
    visits = np.bincount(visited[0], minlength=count)
    coded = _Coded.of(process, rows, subjects)
    explained = np.unique(coded.person[coded.new] * NEVER + coded.day[coded.new]) // NEVER
    mentions, first, episodes, fresh, later = coded.tables(process, count, today, visited)
    test_person, test, test_day, value = _tests(process, rows, subjects)
    return Recorded(
        today=today,
        subjects=subjects,
        born=born,
        entry=entry,
        last=np.maximum(last, entry),
        sex=np.isin(subjects, rows.filter(pl.col("code") == WOMAN)["subject_id"].to_numpy()).astype(np.int64),
        site=np.isin(subjects, rows.filter(pl.col("code") == SITE + SITES[1])["subject_id"].to_numpy()).astype(
            np.int64
        ),
        visits=visits,
        routine=np.maximum(visits - np.bincount(explained, minlength=count), 0),
        codings=np.bincount(coded.person, minlength=count),
        mentions=mentions,
        first=first,
        episodes=episodes,
        fresh=fresh,
        later=later,
        test_person=test_person,
        test=test,
        test_day=test_day,
        value=value,
    )


def _bears(rows: pl.DataFrame, code: str, subjects: IntArray) -> IntArray:
    """(n,) 1 where a person has the code."""
    return np.isin(subjects, rows.filter(pl.col("code") == code)["subject_id"].to_numpy()).astype(np.int64)


def _days(frame: pl.DataFrame, subjects: IntArray) -> tuple[IntArray, IntArray]:
    """(positions, days), ordered."""
    frame = frame.sort("subject_id", "day")
    return np.searchsorted(subjects, frame["subject_id"].to_numpy()), frame["day"].to_numpy().astype(np.int64)


@dataclass(frozen=True)
class _Coded:
    """Diagnoses, one per person, disease and day, in that order; ``new``: the first, or a later episode of an acute."""

    person: IntArray
    disease: IntArray
    day: IntArray
    new: NDArray[np.bool_]

    @classmethod
    def of(cls, process: Process, rows: pl.DataFrame, subjects: IntArray) -> _Coded:
        numbers = {d.category: i for i, d in enumerate(process.diseases)}
        category = pl.col("code").str.slice(len(DIAGNOSIS), 3)
        found = rows.filter(pl.col("code").str.starts_with(DIAGNOSIS) & category.is_in(list(numbers)))
        found = found.select("subject_id", "day", category.replace_strict(numbers, return_dtype=pl.Int64))
        found = found.unique().sort("subject_id", "code", "day")
        person = np.searchsorted(subjects, found["subject_id"].to_numpy())
        disease, day = (found[name].to_numpy().astype(np.int64) for name in ("code", "day"))
        new = np.ones(len(day), dtype=bool)
        same = (person[1:] == person[:-1]) & (disease[1:] == disease[:-1])
        new[1:] = ~same | (~process.chronic[disease[1:]] & (day[1:] - day[:-1] > EPISODE_DAYS))
        return cls(person, disease, day, new)

    def tables(self, process: Process, count: int, today: int, visited: tuple[IntArray, IntArray]) -> list[IntArray]:
        """``mentions``, ``first``, ``episodes``, ``fresh`` and ``later`` of `Recorded`."""
        shape, place = (count, process.death), (self.person, self.disease)
        mentions, episodes, latest = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        first, latest[:] = np.full(shape, NEVER, dtype=np.int64), -NEVER
        np.add.at(mentions, place, 1)
        np.add.at(episodes, (self.person[self.new], self.disease[self.new]), 1)
        np.minimum.at(first, place, self.day)
        np.maximum.at(latest, place, self.day)
        later = np.zeros(shape, dtype=np.int64)
        has = np.nonzero(mentions)
        wide = 1 << 20  # days
        keys = visited[0] * wide + visited[1]
        ends = np.searchsorted(keys, (has[0] + 1) * wide)
        later[has] = ends - np.searchsorted(keys, has[0] * wide + first[has], side="right")
        return [mentions, first, episodes, today - latest, later]


def _tests(
    process: Process, rows: pl.DataFrame, subjects: IntArray
) -> tuple[IntArray, IntArray, IntArray, NDArray[np.float64]]:
    """``test_person``, ``test``, ``test_day`` and ``value`` of `Recorded`, ordered by person and day."""
    numbers = {lab.loinc: i for i, lab in enumerate(process.labs)}
    loinc = pl.col("code").str.slice(len(TEST))
    found = rows.filter(pl.col("code").str.starts_with(TEST) & loinc.is_in(list(numbers)))
    found = found.filter(pl.col("numeric_value").is_not_null()).sort("subject_id", "day", "code", "numeric_value")
    return (
        np.searchsorted(subjects, found["subject_id"].to_numpy()),
        found.select(loinc.replace_strict(numbers, return_dtype=pl.Int64)).to_series().to_numpy(),
        found["day"].to_numpy().astype(np.int64),
        found["numeric_value"].to_numpy().astype(np.float64),
    )
