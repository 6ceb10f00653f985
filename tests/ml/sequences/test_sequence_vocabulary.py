"""The vocabulary: deterministic, append-only, and never without an answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.common.errors import VigilError
from ml.sequences.vocabulary import EMPTY, PAD, SPECIALS, UNK, bin_edges, category, grow, load_vocabulary, prefixes

CODES = st.sampled_from(
    [f"ICD10CM//{c}" for c in ("I50", "I50.9", "I50.92", "I50.1", "E11.9", "E11.65")]
    + ["ICD9CM//428.0", "ICD9CM//E880.9", "ATC//C07AB02", "ATC//C07AB07", "ATC//C07", "LOINC//4548-4", "GENDER//F"]
)
COUNTS = st.dictionaries(CODES, st.integers(1, 12))
VALUES = {"LOINC//4548-4": np.linspace(4, 12, 100, dtype=np.float32)}


@given(COUNTS)
def test_the_same_counts_in_any_order_give_the_same_vocabulary(counts: dict[str, int]) -> None:
    turned = dict(reversed(counts.items()))
    assert grow(EMPTY, counts, VALUES).digest == grow(EMPTY, turned, VALUES).digest


@given(COUNTS, COUNTS)
def test_growing_keeps_every_id_and_bin(first: dict[str, int], second: dict[str, int]) -> None:
    old = grow(EMPTY, first, VALUES)
    new = grow(old, second, {"LOINC//4548-4": VALUES["LOINC//4548-4"] * 2})
    assert new.extends(old)
    assert len(set(new.tokens)) == new.size
    for code in first:
        assert new.lookup(code) == old.lookup(code) or new.tokens[new.lookup(code)] in set(new.tokens) - set(old.tokens)


@given(COUNTS, CODES)
def test_a_code_is_itself_or_its_longest_known_prefix_or_unknown(counts: dict[str, int], code: str) -> None:
    vocabulary = grow(EMPTY, counts, {})
    known = [prefix for prefix in prefixes(code) if prefix in vocabulary.tokens]
    assert vocabulary.lookup(code) == (vocabulary.ids[known[0]] if known else UNK)


def test_prefixes_go_from_the_code_to_its_category() -> None:
    assert prefixes("ICD10CM//I50.92") == ["ICD10CM//I50.92", "ICD10CM//I50.9", "ICD10CM//I50"]
    assert prefixes("ATC//A10BA02")[-1] == "ATC//A10B"
    assert prefixes("LOINC//4548-4") == ["LOINC//4548-4"]
    assert category("ICD9CM//E880.9") == "ICD9CM//E880"
    assert category("ICD10CM//I5") is None


def test_rare_codes_are_their_category() -> None:
    vocabulary = grow(EMPTY, {"ICD10CM//I50.91": 3, "ICD10CM//I50.92": 3, "ICD10CM//J45.0": 4}, {})
    assert vocabulary.tokens == (*SPECIALS, "ICD10CM//I50", "ICD10CM//I50.9")
    assert vocabulary.lookup("ICD10CM//I50.92") == vocabulary.ids["ICD10CM//I50.9"]
    assert vocabulary.lookup("ICD10CM//I50.1") == vocabulary.ids["ICD10CM//I50"]
    assert vocabulary.lookup("ICD10CM//J45.0") == UNK


def test_parents_are_categories_and_codes_of_bins() -> None:
    vocabulary = grow(EMPTY, {"ICD10CM//I50.9": 9, "LOINC//4548-4": 200}, VALUES)
    parent = {token: vocabulary.tokens[vocabulary.parents[i]] for i, token in enumerate(vocabulary.tokens)}
    assert parent["ICD10CM//I50.9"] == "ICD10CM//I50"
    assert parent["LOINC//4548-4//Q2"] == "LOINC//4548-4"
    assert vocabulary.parents[vocabulary.ids["ICD10CM//I50"]] == PAD


def test_bins_hold_equal_shares_and_fewer_where_values_repeat() -> None:
    edges = bin_edges(np.arange(1000, dtype=np.float32))
    shares = np.bincount(np.searchsorted(edges, np.arange(1000), side="right")) / 1000
    assert len(edges) == 4
    assert shares == pytest.approx([0.2] * 5, abs=0.01)
    assert bin_edges(np.full(1000, 7, np.float32)) == ()
    assert bin_edges(np.arange(10, dtype=np.float32)) == ()


def test_a_saved_vocabulary_is_read_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary = grow(EMPTY, {"ICD10CM//I50.9": 9, "LOINC//4548-4": 200}, VALUES, "from here")
    vocabulary.save(path)
    assert load_vocabulary(path) == vocabulary
    content = json.loads(path.read_text())
    content["tokens"][5], content["tokens"][6] = content["tokens"][6], content["tokens"][5]
    path.write_text(json.dumps(content))
    with pytest.raises(VigilError, match="does not match its digest"):
        load_vocabulary(path)
    path.write_text("{")
    with pytest.raises(VigilError, match="cannot be read"):
        load_vocabulary(path)
