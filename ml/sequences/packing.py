"""Events in order by sorts of packed 64-bit integers.

Subject (20 bits), minute (28 bits) and token (15 bits) of an event share one int64, so that a plain integer
sort orders events, and shifts unpack them: several times faster than sorting rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from ml.common.errors import VigilError

SUBJECT_BITS, MINUTE_BITS, TOKEN_BITS = 20, 28, 15
MAX_SUBJECTS, MAX_MINUTES, MAX_TOKENS = 1 << SUBJECT_BITS, 1 << MINUTE_BITS, 1 << TOKEN_BITS
EPOCH_MINUTE = -(1 << 27)  # minute 0 here is 255 years before 1970; the last one 255 years after
MINUTES_PER_DAY = 24 * 60

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


def pack(rows: Int32, minutes: Int64, tokens: Int32) -> Int64:
    """``[events]`` subject, token and minute in one number each, in this order from the highest bits on.

    Args:
        rows: ``[events]`` dense subject numbers from 0.
        minutes: ``[events]`` minutes since 1970, negative before.
        tokens: ``[events]`` token ids.

    Raises:
        VigilError: a number does not fit its bits.
    """
    shifted = minutes - EPOCH_MINUTE
    if rows.size:
        check_subjects(int(rows.max()) + 1)
        check_tokens(int(tokens.max()) + 1)
        _check_minutes(shifted)
    packed = rows.astype(np.int64)
    packed <<= TOKEN_BITS
    packed |= tokens
    packed <<= MINUTE_BITS
    packed |= shifted
    return packed


def first_and_latest(packed: Int64) -> Int64:
    """Each subject's first and latest event of each token, by subject, minute and token, no event twice.

    Chronic codes repeat at every visit: in between they say little, and a model that is to predict a hidden code
    would only learn to copy its neighbour. Half the tokens, and both what began when and what is recent.

    Args:
        packed: what `pack` gave, sorted.
    """
    if not packed.size:
        return packed
    changes = (packed[1:] ^ packed[:-1]) >= MAX_MINUTES  # another subject or token
    kept = np.concatenate(([True], changes))
    kept |= np.concatenate((changes, [True]))
    chosen = _minute_before_token(packed[np.flatnonzero(kept)])
    chosen.sort()
    return chosen[np.flatnonzero(np.concatenate(([True], chosen[1:] != chosen[:-1])))]


def tokens_of(ordered: Int64) -> Int32:
    """``[events]`` token ids of what `first_and_latest` gave."""
    return (ordered & (MAX_TOKENS - 1)).astype(np.int32)


def minutes_of(ordered: Int64) -> Int32:
    """``[events]`` minutes since 1970 of what `first_and_latest` gave."""
    return ((ordered >> TOKEN_BITS) & (MAX_MINUTES - 1)).astype(np.int32) + np.int32(EPOCH_MINUTE)


def days_of(minutes: Int32) -> Int32:
    """``[events]`` days since 1970, rounded down: integers are divided twice as fast without a sign."""
    before = -EPOCH_MINUTE // MINUTES_PER_DAY + 1  # whole days that make every minute positive
    return ((minutes + np.int32(before * MINUTES_PER_DAY)).view(np.uint32) // MINUTES_PER_DAY).view(np.int32) - before


def offsets_of(packed: Int64, first: int, last: int) -> Int64:
    """``[last - first + 1]``: where each subject's events begin, and the end, in sorted packed events of either order
    that hold no subject from ``last`` on."""
    borders = np.arange(first, last, dtype=np.int64) << (MINUTE_BITS + TOKEN_BITS)
    return np.append(np.searchsorted(packed, borders), packed.size).astype(np.int64)


def check_subjects(count: int) -> None:
    """Raise where a shard has more subjects than 20 bits tell apart."""
    if count > MAX_SUBJECTS:
        raise VigilError(
            f"more than {MAX_SUBJECTS:,} subjects in one shard",
            "raise VIGIL_SHARDS and start a new log in another VIGIL_HOME",
        )


def check_tokens(count: int) -> None:
    """Raise where a vocabulary has more tokens than 15 bits tell apart."""
    if count > MAX_TOKENS:
        raise VigilError(
            f"more than {MAX_TOKENS:,} tokens in the vocabulary",
            "raise MINIMUM_COUNT in ml/sequences/vocabulary.py, or train without an initial model, "
            "which drops the codes that are no longer used",
        )


def _check_minutes(shifted: Int64) -> None:
    outside = int(np.count_nonzero((shifted < 0) | (shifted >= MAX_MINUTES)))
    if outside:
        first = datetime(1970, 1, 1) + timedelta(minutes=EPOCH_MINUTE)
        last = first + timedelta(minutes=MAX_MINUTES - 1)
        raise VigilError(
            f"{outside} events are dated before {first:%Y-%m-%dT%H:%M} or after {last:%Y-%m-%dT%H:%M}",
            "correct these dates in the source",
        )


def _minute_before_token(packed: Int64) -> Int64:
    token = (packed >> MINUTE_BITS) & (MAX_TOKENS - 1)
    rest = (packed >> (MINUTE_BITS + TOKEN_BITS)) << (MINUTE_BITS + TOKEN_BITS)
    return rest | ((packed & (MAX_MINUTES - 1)) << TOKEN_BITS) | token
