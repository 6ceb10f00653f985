"""A view becomes sequences: [CLS], what is static, then events in time order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.extraction.schema import BIRTH, DEATH
from ml.sequences.packing import TOKEN_BITS, Int32, Int64, Packed, offsets_of, sort_events
from ml.sequences.vocabulary import CLS, Vocabulary, bin_token

MINUTES_PER_DAY = 24 * 60
UNKNOWN_AGE = -1
STATIC_MINUTE = -(1 << 27)  # sorts what is static before every event
#: Not features: a birth is the age, a death ends the record, race and ethnicity are kept out of the
#: model, and that there was a visit is said by its other events.
LEFT_OUT = rf"^({BIRTH}$|{DEATH}$|RACE//|ETHNICITY//|VISIT//)"


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
    """

    subjects: Int64
    offsets: Int64
    tokens: Int32
    ages: Int32
    days: Int32
    visits: Int32

    @property
    def lengths(self) -> Int64:
        return np.diff(self.offsets)


def tokenise(view: pl.DataFrame, day: date, vocabulary: Vocabulary) -> Sequences:
    """Sequences of every subject of a view, as of the end of a day.

    Args:
        view: events as of ``day`` (EVENT_SCHEMA). Events dated after ``day`` are left out.
        day: the index day.
        vocabulary: gives the ids; unknown codes become their longest known prefix.
    """
    subjects = view["subject_id"].unique().sort().to_numpy()
    end = (day - date(1970, 1, 1)).days + 1  # the day that begins at the prediction time
    events = _features(view, end)
    rows = np.searchsorted(subjects, events["subject_id"].to_numpy())
    minutes = events["minute"].to_numpy()
    tokens = token_ids(events["code"], events["numeric_value"], vocabulary)
    heads = np.arange(subjects.size)
    packed = sort_events(
        np.concatenate((heads, rows)),
        np.concatenate((np.full(subjects.size, STATIC_MINUTE), minutes)),
        np.concatenate((np.full(subjects.size, CLS), tokens)),
    )
    packed = first_and_latest(packed)
    offsets = offsets_of(packed.rows, subjects.size)
    _cls_first(packed.tokens, offsets)
    static = packed.minutes == STATIC_MINUTE
    event_day = np.where(static, end - 1, packed.minutes // MINUTES_PER_DAY)
    births = _births(view, subjects)[packed.rows]
    ages = np.where(births == np.iinfo(np.int64).min, UNKNOWN_AGE, np.maximum(event_day - births, 0))
    return Sequences(
        subjects,
        offsets,
        packed.tokens,
        ages.astype(np.int32),
        (end - 1 - event_day).astype(np.int32),
        _visits(packed.rows, event_day, static),
    )


def token_ids(codes: pl.Series, values: pl.Series, vocabulary: Vocabulary) -> Int64:
    """``[events]`` token ids; a code with value bins and a value becomes the bin's token."""
    distinct = codes.unique().sort()
    plain = np.array([vocabulary.lookup(code) for code in distinct], np.int64)
    number = codes.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int64)
    ids = plain[number] if plain.size else number
    numeric = values.cast(pl.Float32).to_numpy()
    for position, code in enumerate(distinct):
        edges = vocabulary.bins.get(code)
        if edges:
            where = np.flatnonzero((number == position) & np.isfinite(numeric))
            bins = np.searchsorted(np.array(edges, np.float32), numeric[where], side="right") + 1
            by_bin = np.array([0] + [vocabulary.ids[bin_token(code, i)] for i in range(1, len(edges) + 2)])
            ids[where] = by_bin[bins]
    return ids


def first_and_latest(packed: Packed) -> Packed:
    """Keep a subject's first and latest event of each token.

    Chronic codes repeat at every visit: in between they say little, and a model that is to predict a hidden code
    would only learn to copy its neighbour. Half the tokens, and both what began when and what is recent.
    """
    if not packed.tokens.size:
        return packed
    key = (packed.rows << TOKEN_BITS) | packed.tokens
    order = np.argsort(key, kind="stable")  # keeps time order within a subject and token
    changes = key[order][1:] != key[order][:-1]
    kept = np.zeros(key.size, bool)
    kept[order[np.concatenate(([True], changes))]] = True
    kept[order[np.concatenate((changes, [True]))]] = True
    return Packed(packed.rows[kept], packed.minutes[kept], packed.tokens[kept])


def _features(view: pl.DataFrame, end: int) -> pl.DataFrame:
    codes = view["code"].unique()
    kept = codes.filter(~codes.str.contains(LEFT_OUT))
    minute = pl.col("time").dt.epoch("s") // 60
    return (
        view.filter(pl.col("code").is_in(kept.implode()))
        .select("subject_id", "code", "numeric_value", minute=minute.fill_null(STATIC_MINUTE))
        .filter(pl.col("minute") < end * MINUTES_PER_DAY)
    )


def _births(view: pl.DataFrame, subjects: Int64) -> Int64:
    """Day of birth (since 1970) per subject, the smallest int64 where there is none."""
    births = np.full(subjects.size, np.iinfo(np.int64).min)
    born = view.filter((pl.col("code") == BIRTH) & pl.col("time").is_not_null())
    first = born.group_by("subject_id").agg(day=pl.col("time").min().dt.epoch("d"))
    births[np.searchsorted(subjects, first["subject_id"].to_numpy())] = first["day"].to_numpy()
    return births


def _cls_first(tokens: Int32, offsets: Int64) -> None:
    """Swap [CLS] to the front: among the static tokens the sort put it by id, and specials have the smallest ids,
    but [UNK] may stand before it."""
    starts = offsets[:-1]
    wrong = starts[tokens[starts] != CLS]
    tokens[wrong], tokens[wrong + 1] = CLS, tokens[wrong].copy()


def _visits(rows: Int64, event_day: Int64, static: npt.NDArray[np.bool_]) -> Int32:
    """Number of the distinct day within the subject, from 1; 0 where static."""
    new_subject = np.concatenate(([True], rows[1:] != rows[:-1]))[: rows.size]
    new_day = np.concatenate(([True], event_day[1:] != event_day[:-1]))[: rows.size]
    began = np.concatenate(([True], static[1:] != static[:-1]))[: rows.size]  # the first event after what is static
    step = ~static & (new_subject | new_day | began)
    count = np.cumsum(step)
    start = np.maximum.accumulate(np.where(new_subject, count - step, 0))
    return np.where(static, 0, count - start).astype(np.int32)
