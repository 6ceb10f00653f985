"""The tokeniser in plain Python, event by event: slow, and what the fast one must equal bit for bit."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from ml.sequences.tokens import Sequences
from ml.sequences.vocabulary import CLS, Vocabulary, bin_token

FIRST = -(1 << 27)  # the minute of what is static
NO_FEATURES = ("RACE//", "ETHNICITY//", "VISIT//", "VISIT_END//")
EPOCH = datetime(1970, 1, 1)
Event = tuple[int, datetime | None, str, float | None]


def plain_tokenise(events: list[Event], day: date, vocabulary: Vocabulary) -> Sequences:
    """What `tokenise` gives for a view of these events."""
    end = (day - EPOCH.date()).days + 1
    subjects = sorted({subject for subject, *_ in events})
    offsets, rows = [0], []
    for subject in subjects:
        rows += sequence([event for event in events if event[0] == subject], end, vocabulary)
        offsets.append(len(rows))
    columns = [np.array([row[i] for row in rows], np.int32) for i in range(4)]
    now = np.full(len(subjects), end - 1, np.int32)
    stays = np.array([any(long_stay(event, day) for event in events if event[0] == who) for who in subjects], bool)
    return Sequences(np.array(subjects, np.int64), np.array(offsets, np.int64), *columns, now, stays)


def long_stay(event: Event, day: date) -> bool:
    _, time, code, value = event
    return (
        code.startswith("VISIT_END//") and time is not None and time.date() <= day and value is not None and value > 7
    )


def sequence(events: list[Event], end: int, vocabulary: Vocabulary) -> list[tuple[int, int, int, int]]:
    """Token, age, days and visit of one subject's tokens."""
    known = {(minute_of(time), token_of(code, value, vocabulary)) for _, time, code, value in events if feature(code)}
    known = {(minute, token) for minute, token in known if minute < end * 1440}
    by_token = [[pair for pair in known if pair[1] == token] for token in {token for _, token in known}]
    ordered = sorted({(FIRST, CLS)} | {min(pairs) for pairs in by_token} | {max(pairs) for pairs in by_token})
    if ordered[0][1] != CLS:
        ordered[0], ordered[1] = ordered[1], ordered[0]
    births = [day_of(time) for _, time, code, _ in events if code == "MEDS_BIRTH" and time is not None]
    days = sorted({minute // 1440 for minute, _ in ordered if minute != FIRST})
    made = []
    for minute, token in ordered:
        static = minute == FIRST
        event_day = end - 1 if static else minute // 1440
        age = max(event_day - min(births), 0) if births else -1
        made.append((token, age, end - 1 - event_day, 0 if static else days.index(event_day) + 1))
    return made


def feature(code: str) -> bool:
    return code not in ("MEDS_BIRTH", "MEDS_DEATH") and not code.startswith(NO_FEATURES)


def minute_of(time: datetime | None) -> int:
    return FIRST if time is None else (time - EPOCH) // timedelta(minutes=1)


def day_of(time: datetime) -> int:
    return (time - EPOCH) // timedelta(days=1)


def token_of(code: str, value: float | None, vocabulary: Vocabulary) -> int:
    edges = vocabulary.bins.get(code)
    if not edges or value is None or not math.isfinite(value):
        return vocabulary.lookup(code)
    return vocabulary.ids[bin_token(code, 1 + sum(edge <= value for edge in edges))]


def view_of(events: list[Event]) -> pl.DataFrame:
    """The events as a view has them."""
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    return pl.DataFrame(events, schema=schema, orient="row")
