"""The patient split: by salted hash, for life."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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


def check_disjoint(frame: pl.DataFrame) -> None:
    """Fail where a subject lies in two splits, or in one that is not known.

    Args:
        frame: with columns ``subject_id`` and ``split``.

    Raises:
        VigilError: the splits overlap; the message gives counts, no subject.
    """
    known = {name for name, _ in SHARES}
    strange = frame.filter(~pl.col("split").is_in(known) | pl.col("split").is_null()).height
    overlapping = frame.group_by("subject_id").agg(n=pl.col("split").n_unique()).filter(pl.col("n") > 1).height
    if strange or overlapping:
        raise VigilError(
            f"the patient split is broken: {overlapping} subjects in more than one split, {strange} rows in none",
            "nothing may be trained on these labels; restore VIGIL_SPLIT_SALT and make them again",
        )
