"""Volume: how many rows of each kind a night should bring, learnt from the trailing four weeks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from statistics import median

from ml.extraction.log import Partition
from ml.quality.rules import (
    EXPECTED_IF_ABSENT,
    KIND_SHARE,
    KIND_SIGMAS,
    TRAILING_DAYS,
    VOLUME_DAYS,
    VOLUME_SHARE,
    VOLUME_SIGMAS,
)
from ml.quality.verdict import Volume

TO_SIGMA = 1.4826  # median absolute deviation of a normal distribution, to its standard deviation


def volumes(partition: Partition, committed: Sequence[Partition]) -> tuple[Volume, ...]:
    """The volume of each kind of record of a night; of a base load none.

    A kind is expected on each day covered as often as the median of the same weekday says (of all trailing days, where
    no such weekday is there). Tolerated is the largest of: a quarter of that; six robust standard deviations of the
    trailing days about their weekdays' medians; four standard deviations of a Poisson count.
    """
    if partition.recorded_from is None:
        return ()
    nights = trailing(partition.recorded_from, committed)
    kinds = sorted({*partition.rows, *(kind for night in nights for kind in night.rows)})
    return tuple(_volume(kind, partition, _by_day(kind, nights, partition.recorded_from)) for kind in kinds)


def trailing(first: date, committed: Sequence[Partition]) -> list[Partition]:
    """Committed nights, base loads left out, that end in the four weeks before a day."""
    earliest = first - timedelta(days=TRAILING_DAYS)
    return [p for p in committed if p.recorded_from is not None and earliest <= p.recorded_to < first]


def covered_days(partition: Partition) -> list[date]:
    """The recorded days a night covers; a base load, which covers all there ever were, has none."""
    first = partition.recorded_from
    if first is None:
        return []
    return [first + timedelta(days=n) for n in range((partition.recorded_to - first).days + 1)]


def departure(volume: Volume) -> float:
    """Distance from what is expected; 1 is what is tolerated, 0 where nothing is expected yet."""
    if volume.expected is None or volume.tolerance is None:
        return 0.0
    return abs(volume.rows - volume.expected) / volume.tolerance


def _by_day(kind: str, nights: Sequence[Partition], first: date) -> dict[date, float]:
    """Rows per covered day; a night of several days has the same for each."""
    found = {}
    for night in nights:
        days = covered_days(night)
        found.update(dict.fromkeys(days, night.rows.get(kind, 0) / len(days)))
    return {day: rows for day, rows in sorted(found.items()) if day >= first - timedelta(days=TRAILING_DAYS)}


def _volume(kind: str, partition: Partition, before: Mapping[date, float]) -> Volume:
    rows, shown = partition.rows.get(kind, 0), {str(day): count for day, count in before.items()}
    if len(before) < VOLUME_DAYS:
        return Volume(kind, rows, None, None, False, shown)
    usual = _weekdays(before)
    overall = median(before.values())
    today = covered_days(partition)
    expected = sum(usual.get(day.weekday(), overall) for day in today)
    spread = TO_SIGMA * median(abs(count - usual[day.weekday()]) for day, count in before.items())
    tolerance = max(
        KIND_SHARE * expected,
        KIND_SIGMAS * spread * len(today) ** 0.5,
        VOLUME_SIGMAS * max(expected, 1) ** 0.5,
    )
    always = all(before.values())
    return Volume(kind, rows, expected, tolerance, not rows and (always or expected >= EXPECTED_IF_ABSENT), shown)


def _weekdays(before: Mapping[date, float]) -> dict[int, float]:
    weekdays: dict[int, list[float]] = {}
    for day, count in before.items():
        weekdays.setdefault(day.weekday(), []).append(count)
    return {weekday: median(counts) for weekday, counts in weekdays.items()}


def volume_departure(partition: Partition, committed: Sequence[Partition]) -> float:
    """How far a night's rows of all kinds lie from the same weekday's mean over four weeks, at worst; 1 is tolerated.

    Known from the first night on, for a base load tells its last days' rows, though not by kind. 0 where there is
    nothing to compare with: in a base load and in the first two weeks.
    """
    if partition.recorded_from is None:
        return 0.0
    days: dict[date, int] = {}
    for part in [*committed, partition]:
        days.update({date.fromisoformat(day): rows for day, rows in part.days.items()})
    return max(_departure(days, day) for day in covered_days(partition))


def _departure(days: Mapping[date, int], day: date) -> float:
    before = [day - timedelta(days=back) for back in range(7, TRAILING_DAYS + 1, 7)]
    known = [days.get(earlier, 0) for earlier in before if earlier >= min(days, default=day)]
    if len(known) < 2:
        return 0.0
    mean = sum(known) / len(known)
    return abs(days.get(day, 0) - mean) / max(VOLUME_SHARE * mean, VOLUME_SIGMAS * max(mean, 1) ** 0.5)
