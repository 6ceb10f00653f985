"""The patient split: by salted hash, for life."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from ml.common.errors import VigilError

Split = Literal["train", "tuning", "held_out"]
SHARES: tuple[tuple[Split, float], ...] = (("train", 0.60), ("tuning", 0.15), ("held_out", 0.25))


def split_of(subject_id: int, salt: str) -> Split:
    """The split of a subject: SHA-256 of ``salt:subject_id`` as a fraction of 2^64, cut at 0.60 and 0.75."""
    fraction = int.from_bytes(hashlib.sha256(f"{salt}:{subject_id}".encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for name, share in SHARES:
        edge += share
        if fraction < edge:
            return name
    return SHARES[-1][0]


def split_all(subject_ids: Iterable[int], salt: str) -> dict[int, Split]:
    """The split of each subject."""
    return {subject: split_of(subject, salt) for subject in subject_ids}


def overlaps(frame: pl.DataFrame) -> tuple[int, int]:
    """Rows in no split that is known, and subjects in more than one, of ``subject_id`` and ``split``."""
    known = {name for name, _ in SHARES}
    strange = frame.filter(~pl.col("split").is_in(known) | pl.col("split").is_null()).height
    overlapping = frame.group_by("subject_id").agg(n=pl.col("split").n_unique()).filter(pl.col("n") > 1).height
    return strange, overlapping


def check_disjoint(frame: pl.DataFrame) -> None:
    """Fail where a subject lies in two splits, or in one that is not known.

    Args:
        frame: with columns ``subject_id`` and ``split``.

    Raises:
        VigilError: the splits overlap; the message gives counts, no subject.
    """
    strange, overlapping = overlaps(frame)
    if strange or overlapping:
        raise VigilError(
            f"the patient split is broken: {overlapping} subjects in more than one split, {strange} rows in none",
            "nothing may be trained on these labels; restore VIGIL_SPLIT_SALT and make them again",
        )


def temporal_hold_out(frame: pl.DataFrame, horizon_days: int) -> pl.DataFrame:
    """The held-out patients at the newest index day: of other patients, and later, than anything a model learns from.

    Args:
        frame: labels with ``subject_id``, ``prediction_time``, ``split``, ``index`` (1 is the newest day).
        horizon_days: of the task.

    Raises:
        VigilError: the splits overlap, or a horizon that a model learns from reaches past the newest index day.
    """
    check_disjoint(frame)
    newest = frame.filter(pl.col("index") == 1)
    learnt = frame.filter((pl.col("index") > 1) & (pl.col("split") != "held_out"))
    begins, ends = newest["prediction_time"].min(), learnt["prediction_time"].max()
    if isinstance(begins, datetime) and isinstance(ends, datetime) and ends + timedelta(days=horizon_days) > begins:
        raise VigilError(
            f"labels that a model learns from reach {(ends + timedelta(days=horizon_days) - begins).days} days into "
            "the temporal hold-out",
            f"set VIGIL_INDEX_STEP to at least the horizon of {horizon_days} days and make the labels again",
        )
    return newest.filter(pl.col("split") == "held_out")
