"""The patient split: by salted hash, for life."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

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
