"""Counting patients and person-time, in numba loops over compressed rows.

Every count adds up over shards: a kernel adds one shard's part into the array it is given. Pairs are counted by
walking each patient's own codes, so the work grows with the squares of the histories' lengths, not with the number
of codes.

The kernels are compiled when first called and not cached on disk: numba's cache unpickles what it finds there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ml.interconnections.cohort import UNKNOWN_BIRTH, Cohort, Histories

DAYS_PER_YEAR = 365.25


@njit(nogil=True)
def _add_together(offsets, code, counts):  # type: ignore[no-untyped-def]
    for p in range(len(offsets) - 1):
        for x in range(offsets[p], offsets[p + 1]):
            row = counts[code[x]]
            for y in range(x, offsets[p + 1]):
                row[code[y]] += 1


@njit(nogil=True)
def _add_ordered(offsets, code, day, counts):  # type: ignore[no-untyped-def]
    for p in range(len(offsets) - 1):
        for x in range(offsets[p], offsets[p + 1]):
            row, first = counts[code[x]], day[x]
            for y in range(offsets[p], offsets[p + 1]):
                row[code[y]] += first < day[y]


def count_together(cohort: Cohort) -> NDArray[np.int64]:
    """(C, C) symmetric: patients who ever had both; the diagonal holds the patients of each code."""
    counts = np.zeros((len(cohort.codes),) * 2, dtype=np.int32)
    for shard in cohort.shards:
        _add_together(shard.offsets, shard.code, counts)
    upper = counts.astype(np.int64)
    return upper + np.triu(upper, 1).T


def count_ordered(cohort: Cohort) -> NDArray[np.int64]:
    """(C, C): patients whose first i lies on an earlier day than their first j; a same-day pair counts for neither."""
    counts = np.zeros((len(cohort.codes),) * 2, dtype=np.int32)
    for shard in cohort.shards:
        _add_ordered(shard.offsets, shard.code, shard.day, counts)
    return counts.astype(np.int64)


@dataclass(frozen=True)
class Windows:
    """Pieces of follow-up: who, from when (excluded), until when (included), and in which stratum.

    Attributes:
        patient: (W,) int64, row in the shard's histories.
        low, high: (W,) int32 days; time at risk is (low, high].
        stratum: (W,) int64.
    """

    patient: NDArray[np.int64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    stratum: NDArray[np.int64]

    def of(self, stratum: int) -> Windows:
        """Those of one stratum."""
        rows = np.flatnonzero(self.stratum == stratum)
        return Windows(self.patient[rows], self.low[rows], self.high[rows], self.stratum[rows])


def age_windows(histories: Histories, clearance: int, band_years: int) -> Windows:
    """Cut each patient's follow-up at his birthdays that end an age band (a Lexis expansion).

    Args:
        clearance: days after the start of follow-up that are not yet at risk.
        band_years: width of an age band; a stratum is sex × band, people without a birth have one of their own.
    """
    low = histories.start.astype(np.int64) + clearance
    end = histories.end.astype(np.int64)
    born = histories.birth.astype(np.int64)
    known = histories.birth != UNKNOWN_BIRTH
    bands = int(120 // band_years)
    parts = [_piece(histories, low, end, np.full(len(low), bands), ~known)]
    for band in range(bands):
        since = born + round(band * band_years * DAYS_PER_YEAR)
        until = born + round((band + 1) * band_years * DAYS_PER_YEAR)
        since = since if band else np.full_like(since, np.iinfo(np.int32).min)
        until = until if band < bands - 1 else np.full_like(until, np.iinfo(np.int32).max)
        parts.append(_piece(histories, np.maximum(low, since), np.minimum(end, until), np.full(len(low), band), known))
    columns = (np.concatenate([part[column] for part in parts]) for column in range(4))
    patient, first, last, band_of = columns
    return Windows(
        patient,
        first.astype(np.int32),
        last.astype(np.int32),
        band_of + histories.sex[patient].astype(np.int64) * (bands + 1),
    )


def _piece(
    histories: Histories,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    band: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    rows = np.flatnonzero(chosen & (low < high))
    return rows, low[rows], high[rows], band[rows]


@dataclass(frozen=True)
class Exposure:
    """Events and time at risk in one stratum, split by who had the source before. Integers: sums over shards are exact.

    For source A and target B, [A, B]: ``pairs[..., 0]`` first B after A; the other three correct the margins for
    patients who have both, see ``exposure_of``.

    Attributes:
        pairs: (C, C, 4) int64.
        codes: (C, 3) int64: events; days from the first record on; days from ``gap`` after the first record on.
        days: (1,) int64, all days at risk.
    """

    pairs: NDArray[np.int64]
    codes: NDArray[np.int64]
    days: NDArray[np.int64]

    @staticmethod
    def empty(codes: int) -> Exposure:
        return Exposure(np.zeros((codes, codes, 4), np.int64), np.zeros((codes, 3), np.int64), np.zeros(1, np.int64))

    def clear(self) -> None:
        """Back to zero, to be used for the next stratum: the arrays are large."""
        for array in (self.pairs, self.codes, self.days):
            array.fill(0)

    def add(self, histories: Histories, windows: Windows, gap: int) -> None:
        """Add one shard's windows of this stratum. The target counts as after A when more than ``gap`` days later."""
        _add_exposure(
            histories.offsets, histories.code, histories.day, windows.patient, windows.low, windows.high, gap,
            self.pairs, self.codes, self.days,
        )  # fmt: skip


@njit(nogil=True)
def _add_exposure(offsets, code, day, patient, low, high, gap, pairs, codes, days):  # type: ignore[no-untyped-def]
    for w in range(len(patient)):
        lo, hi = np.int64(low[w]), np.int64(high[w])
        length = hi - lo
        days[0] += length
        begin, end = offsets[patient[w]], offsets[patient[w] + 1]
        for x in range(begin, end):
            a = np.int64(day[x])
            until_a = min(max(a, lo), hi) - lo  # at risk before A
            after_a = hi - min(max(a + gap, lo), hi)  # at risk after A
            mine = codes[code[x]]
            mine[0] += lo < a <= hi
            mine[1] += length - until_a
            mine[2] += after_a
            row = pairs[code[x]]
            for y in range(begin, end):
                b = np.int64(day[y])
                until_b = min(max(b, lo), hi) - lo
                cell = row[code[y]]
                event = lo < b <= hi
                cell[0] += event and b > a + gap
                cell[1] += event and b >= a  # not an event among the unexposed
                cell[2] += after_a - max(0, lo + until_b - max(a + gap, lo))
                cell[3] += (length - until_a) - (until_b - min(until_a, until_b))


@njit(nogil=True)
def exposure_of(pairs, codes, days, a, b):  # type: ignore[no-untyped-def]
    """Of [A, B]: events after A, events without A before, days at risk after A, days at risk without A before."""
    cell = pairs[a, b]
    after = cell[0]
    without = codes[b, 0] - cell[1]
    days_after = codes[a, 2] - cell[2]
    days_without = days[0] - codes[b, 1] - codes[a, 1] + cell[3]
    return after, without, days_after, days_without
