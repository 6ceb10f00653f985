"""Disclosure control and pseudonyms: no small count and no subject id gets out."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.common.errors import ConfigError
from ml.publication.disclosure import COUNTS, suppress_small
from ml.publication.pseudonyms import pseudonym, pseudonymise
from ml.settings import Settings, get_settings

counts = st.lists(st.tuples(*[st.integers(0, 30) | st.none()] * 3), max_size=20)


def table(rows: list[tuple[int | None, ...]]) -> pa.Table:
    columns = {name: pa.array([row[i] for row in rows], pa.int64()) for i, name in enumerate(COUNTS)}
    return pa.table({**columns, "weight": pa.array([float(i) for i in range(len(rows))])})


@given(counts, st.integers(1, 20))
def test_exactly_the_rows_with_a_small_or_missing_count_go(rows: list[tuple[int | None, ...]], least: int) -> None:
    kept, gone = suppress_small(table(rows), least)
    wanted = [i for i, row in enumerate(rows) if all(n is not None and n >= least for n in row)]
    assert kept["weight"].to_pylist() == wanted
    assert gone == len(rows) - len(wanted)


def test_a_pseudonym_is_keyed_and_the_same_every_night() -> None:
    assert pseudonym(b"k" * 32, 17) == pseudonym(b"k" * 32, 17)
    assert pseudonym(b"k" * 32, 17) != pseudonym(b"l" * 32, 17)
    # HMAC-SHA256 of "17", computed with openssl dgst -sha256 -hmac
    assert pseudonym(b"k" * 32, 17) == "f740509121c4f5426f1e01abd7120b5c"


def test_pseudonyms_keep_order_and_repeats(vigil: Settings) -> None:
    found = pseudonymise(pa.chunked_array([[3, 1], [3]], pa.int64())).to_pylist()
    assert found[0] == found[2] != found[1]
    assert all(len(name) == 32 for name in found)


@pytest.mark.parametrize("key", [None, "short"])
def test_without_a_good_key_nothing_is_named(vigil: Settings, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.delenv("VIGIL_PSEUDONYM_KEY")
    if key:
        monkeypatch.setenv("VIGIL_PSEUDONYM_KEY", key)
    get_settings.cache_clear()
    with pytest.raises(ConfigError, match="VIGIL_PSEUDONYM_KEY") as caught:
        pseudonymise(pa.chunked_array([[1]], pa.int64()))
    assert "short" not in str(caught.value)
