"""A view becomes sequences: [CLS], what is static, then events in time order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.extraction.schema import BIRTH, VISIT_END
from ml.sequences.codes import NO_FEATURE, Codebook, starting_with
from ml.sequences.packing import (
    EPOCH_MINUTE,
    MINUTES_PER_DAY,
    Int32,
    Int64,
    check_subjects,
    days_of,
    first_and_latest,
    minutes_of,
    offsets_of,
    pack,
    tokens_of,
)
from ml.sequences.subjects import Subjects
from ml.sequences.vocabulary import CLS, Vocabulary

Bool = npt.NDArray[np.bool_]

COLUMNS = ("subject_id", "time", "code", "numeric_value")  # what of a view is used
MICROSECONDS_PER_MINUTE = 60_000_000
UNKNOWN_AGE = -1
STATIC_MINUTE = EPOCH_MINUTE  # sorts what is static before every event
NO_BIRTH = np.iinfo(np.int32).min
LONG_STAY = 7.0  # days: what Med-BERT predicts beside the masked codes (Rasmy 2021, prolonged length of stay)
SLICE = 1 << 18  # events worked on at once: what is made on the way stays small


@dataclass(frozen=True)
class Sequences:
    """Sequences of many subjects, flat; subject i owns ``offsets[i]:offsets[i + 1]``.

    Attributes:
        subjects: ``[n]`` subject ids, ascending.
        offsets: ``[n + 1]``.
        tokens: ``[total]`` token ids; each sequence begins with [CLS].
        ages: ``[total]`` age in days at the event, at the index day for [CLS] and static tokens; -1 unknown.
        days: ``[total]`` days from the event to the end of the index day, at least 0; 0 for [CLS] and static tokens.
        visits: ``[total]`` number of the distinct day with a kept event, from 1; 0 for [CLS] and static tokens.
        now: ``[n]`` the index day, days since 1970.
        long_stays: ``[n]`` whether any stay of more than `LONG_STAY` days had ended by the index day.
    """

    subjects: Int64
    offsets: Int64
    tokens: Int32
    ages: Int32
    days: Int32
    visits: Int32
    now: Int32
    long_stays: Bool

    @property
    def lengths(self) -> Int64:
        return np.diff(self.offsets)


def tokenise(view: pl.DataFrame, day: date, vocabulary: Vocabulary) -> Sequences:
    """Sequences of every subject of a view, as of the end of a day.

    Beside the view it takes 8 bytes per event and 16 per event that is kept.

    Args:
        view: events as of ``day``, with `COLUMNS` at least, in any order. Events dated after ``day`` are left out.
        day: the index day.
        vocabulary: gives the ids; unknown codes become their longest known prefix.

    Raises:
        VigilError: subjects or tokens are too many, or a date is too far off, for their bits (`packing`).
    """
    end = (day - date(1970, 1, 1)).days + 1  # the day that begins at the prediction time
    subjects = Subjects(view["subject_id"])
    births = _births(view, subjects.ids)
    long_stays = _long_stays(view, subjects.ids, day)
    packed = _pack(view, subjects, end, Codebook(vocabulary))
    del view  # the caller may have kept no other reference
    packed.sort()
    return _sequences(packed, subjects.ids, births, end, long_stays)


def _pack(view: pl.DataFrame, subjects: Subjects, end: int, codebook: Codebook) -> Int64:
    """One [CLS] per subject, and the features of a view; in no order."""
    count = subjects.ids.size
    check_subjects(count)
    packed = np.empty(count + view.height, np.int64)
    rows = np.arange(count, dtype=np.int32)
    packed[:count] = pack(rows, np.full(count, STATIC_MINUTE), np.full(count, CLS, np.int32))
    filled = count
    for part in view.select(COLUMNS).iter_slices(SLICE):
        tokens = codebook.token_ids(part["code"], part["numeric_value"])
        microseconds = part["time"].cast(pl.Datetime("us")).to_physical()
        minutes = (microseconds // MICROSECONDS_PER_MINUTE).fill_null(STATIC_MINUTE).to_numpy()
        kept = np.flatnonzero((tokens != NO_FEATURE) & (minutes < end * MINUTES_PER_DAY))
        made = pack(subjects.rows(part["subject_id"])[kept], minutes[kept], tokens[kept])
        packed[filled : filled + made.size] = made
        filled += made.size
    return packed[:filled]


def _sequences(packed: Int64, subjects: Int64, births: Int32, end: int, long_stays: Bool) -> Sequences:
    """From sorted packed events, whole subjects of some `SLICE` events at a time."""
    begins = offsets_of(packed, 0, subjects.size)
    cuts = np.unique(np.searchsorted(begins, np.arange(0, packed.size + SLICE, SLICE)).clip(max=subjects.size))
    arrays = [np.empty(packed.size, np.int32) for _ in range(4)]  # memory that is never written to is never taken
    offsets, filled = np.zeros(subjects.size + 1, np.int64), 0
    for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        ordered = first_and_latest(packed[begins[first] : begins[last]])
        inner = offsets_of(ordered, first, last)
        offsets[first : last + 1] = filled + inner
        for array, part in zip(arrays, _columns(ordered, inner, births[first:last], end), strict=True):
            array[filled : filled + ordered.size] = part
        filled += ordered.size
    now = np.full(subjects.size, end - 1, np.int32)
    tokens, ages, days, visits = (array[:filled] for array in arrays)
    return Sequences(subjects, offsets, tokens, ages, days, visits, now, long_stays)


def _columns(ordered: Int64, offsets: Int64, births: Int32, end: int) -> tuple[Int32, Int32, Int32, Int32]:
    """``[events]`` tokens, ages, days and visits of some subjects, whose events begin at ``offsets``."""
    tokens, minutes, lengths = tokens_of(ordered), minutes_of(ordered), np.diff(offsets)
    _cls_first(tokens, offsets)
    static = minutes == STATIC_MINUTE
    day = days_of(minutes)
    visits = _visits(day, static, offsets)
    day[static] = end - 1
    born = np.repeat(births, lengths)
    ages = np.where(born == NO_BIRTH, UNKNOWN_AGE, np.maximum(day - born, 0)).astype(np.int32)
    return tokens, ages, np.int32(end - 1) - day, visits


def _births(view: pl.DataFrame, subjects: Int64) -> Int32:
    """Day of birth (since 1970) per subject, `NO_BIRTH` where there is none."""
    births = np.full(subjects.size, NO_BIRTH, np.int32)
    born = view.filter((pl.col("code") == BIRTH) & pl.col("time").is_not_null())
    first = born.group_by("subject_id").agg(day=pl.col("time").min().dt.epoch("d"))
    births[np.searchsorted(subjects, first["subject_id"].to_numpy())] = first["day"].to_numpy()
    return births


def _long_stays(view: pl.DataFrame, subjects: Int64, day: date) -> Bool:
    """``[subjects]`` whether a stay of more than `LONG_STAY` days had ended by the index day."""
    ends = starting_with(view["code"], VISIT_END)
    known = view.lazy().filter(ends & (pl.col("time").dt.date() <= day) & (pl.col("numeric_value") > LONG_STAY))
    found = known.select("subject_id").collect()["subject_id"].unique().to_numpy()
    return np.isin(subjects, found)


def _cls_first(tokens: Int32, offsets: Int64) -> None:
    """Swap [CLS] to the front: among the static tokens the sort put it by id, and specials have the smallest ids,
    but [UNK] may stand before it."""
    starts = offsets[:-1]
    wrong = starts[tokens[starts] != CLS]
    tokens[wrong], tokens[wrong + 1] = CLS, tokens[wrong].copy()


def _visits(day: Int32, static: npt.NDArray[np.bool_], offsets: Int64) -> Int32:
    """Number of the distinct day within the subject, from 1; 0 where static, as every subject's first token is."""
    begun = np.zeros(day.size, bool)
    begun[1:] = (day[1:] != day[:-1]) | static[:-1]
    begun &= ~static
    count = np.cumsum(begun, dtype=np.int32)
    return count - np.repeat(count[offsets[:-1]], np.diff(offsets))
