"""Pseudonyms: how a subject is named outside the restricted side."""

from __future__ import annotations

import hmac

import pyarrow as pa
import pyarrow.compute as pc

from ml.common.errors import ConfigError
from ml.settings import get_settings

LENGTH = 32  # hexadecimal digits kept of HMAC-SHA256: 128 bits, so two of a billion subjects collide with p < 2e-21
_LEAST_KEY = 32  # characters


def pseudonym(key: bytes, subject_id: int) -> str:
    """HMAC-SHA256 (RFC 2104) of the decimal subject id, its first 32 hexadecimal digits."""
    return hmac.digest(key, str(subject_id).encode(), "sha256").hex()[:LENGTH]


def pseudonym_of(subject_id: int) -> str:
    """The published pseudonym of one subject.

    Raises:
        ConfigError: there is no key, or a short one.
    """
    return pseudonym(_key(), subject_id)


def pseudonymise(subject_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Pseudonyms of subject ids, in their order.

    Raises:
        ConfigError: there is no key, or a short one.
    """
    key = _key()
    distinct = pc.unique(subject_ids)
    names = pa.array([pseudonym(key, number) for number in distinct.to_pylist()], pa.string())
    return pa.chunked_array([names.take(pc.index_in(subject_ids.combine_chunks(), distinct))])


def _key() -> bytes:
    secret = get_settings().pseudonym_key
    remedy = (
        "set VIGIL_PSEUDONYM_KEY to 64 random hexadecimal digits (openssl rand -hex 32), keep it, and never change it"
    )
    if secret is None:
        raise ConfigError("no key for pseudonyms", remedy)
    value = secret.get_secret_value()
    if len(value) < _LEAST_KEY:
        raise ConfigError(f"the key for pseudonyms has fewer than {_LEAST_KEY} characters", remedy)
    return value.encode()
