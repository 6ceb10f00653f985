"""Which shard a subject belongs to, computed here so that it does not hang on the database."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml.common.errors import ConfigError
from ml.extraction.schema import BUCKETS


def buckets(subject_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Fixed bucket of each subject, 0 … 255, shape as given.

    The finaliser of splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195), lowest eight bits.
    """
    mixed = subject_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(BUCKETS - 1)).astype(np.uint16)


def check_shards(shards: int) -> None:
    """Refuse a number of shards that would cut a bucket in two.

    Raises:
        ConfigError: it does not divide 256.
    """
    if BUCKETS % shards:
        raise ConfigError(
            f"{shards} shards do not divide {BUCKETS} buckets", "set VIGIL_SHARDS to a power of two up to 256"
        )
