"""The vocabulary: deterministic, append-only, and never without an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.common.errors import VigilError
from ml.sequences.packing import MAX_TOKENS
from ml.sequences.prepare import add_up, count_shard
from ml.sequences.vocabulary import (
    EMPTY,
    PAD,
    SPECIALS,
    UNK,
    Vocabulary,
    bin_edges,
    category,
    grow,
    load_vocabulary,
    prefixes,
)

CODES = st.sampled_from(
    [f"ICD10CM//{c}" for c in ("I50", "I50.9", "I50.92", "I50.1", "E11.9", "E11.65")]
    + ["ICD9CM//428.0", "ICD9CM//E880.9", "ATC//C07AB02", "ATC//C07AB07", "ATC//C07", "LOINC//4548-4", "GENDER//F"]
)
COUNTS = st.dictionaries(CODES, st.integers(1, 12))
SCHEMA = {"subject_id": pl.Int64, "code": pl.String, "numeric_value": pl.Float32}
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


NIGHT = st.tuples(COUNTS, st.dictionaries(CODES, st.integers(0, 9)))  # and a seed for the values of a code


@settings(max_examples=50, deadline=None)
@given(st.lists(NIGHT, min_size=2, max_size=5))
def test_over_any_sequence_of_nights_old_ids_and_bins_stay_and_the_digest_tells_of_growth(
    nights: list[tuple[dict[str, int], dict[str, int]]],
) -> None:
    vocabularies = [EMPTY]
    for counts, seeds in nights:
        values = {code: np.random.default_rng(seed).random(60, np.float32) for code, seed in seeds.items()}
        vocabularies.append(grow(vocabularies[-1], counts, values))
    for i, older in enumerate(vocabularies):
        for newer in vocabularies[i + 1 :]:
            assert newer.extends(older)
            assert len(set(newer.tokens)) == newer.size
            assert (newer.digest == older.digest) == (newer == older)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), CODES, st.none() | st.floats(width=32)), max_size=120),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_shards_in_any_order_and_number_give_the_same_vocabulary(
    events: list[tuple[int, str, float | None]], shards: int, random: Random
) -> None:
    def learned(parts: list[list[tuple[int, str, float | None]]]) -> Vocabulary:
        views = (pl.DataFrame(part, schema=SCHEMA, orient="row") for part in parts)
        counts = add_up(count_shard(view, "salt") for view in views)
        return grow(EMPTY, counts.events, counts.values)

    events = [*events, *((who, "LOINC//4548-4", float(who)) for who in range(1, 100))]
    expected = learned([events])
    assert expected.bins
    parts = [[event for event in events if event[0] % shards == shard] for shard in range(shards)]
    random.shuffle(parts)
    for part in parts:
        random.shuffle(part)
    assert learned(parts).digest == expected.digest


def test_the_digest_depends_on_no_hash_seed() -> None:
    script = (
        "from ml.sequences.vocabulary import EMPTY, grow;"
        "import numpy as np;"
        "codes = {f'ICD10CM//{a}{b}.{c}': 1 + c for a in 'ABC' for b in range(10, 30) for c in range(9)};"
        "print(grow(grow(EMPTY, codes, {}), codes, {'ICD10CM//A10.8': np.arange(99, dtype=np.float32)}).digest)"
    )
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_a_digest_once_given_never_changes() -> None:
    vocabulary = grow(EMPTY, {"ICD10CM//I50.9": 9, "LOINC//4548-4": 200}, VALUES)
    assert vocabulary.digest == "9aa649eea03b65169da451b6b4ff4c7a9155b5f87ac741592cc456b74a52cd1f"


def test_a_vocabulary_of_more_tokens_than_15_bits_hold_is_refused() -> None:
    full = grow(EMPTY, {f"X//{number}": 9 for number in range(MAX_TOKENS - len(SPECIALS))}, {})
    assert full.size == MAX_TOKENS
    with pytest.raises(VigilError, match="more than 32,768 tokens in the vocabulary: raise MINIMUM_COUNT"):
        grow(full, {"X//one more": 9}, {})


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


def test_negative_zeros_do_not_make_the_digest_depend_on_the_order_of_values() -> None:
    values = np.repeat(np.array([-1, -0.0, 0.0, 1], np.float32), [20, 20, 40, 20])
    found = {
        grow(EMPTY, {"X": 99}, {"X": np.sort(np.random.default_rng(seed).permutation(values))}).digest
        for seed in range(20)
    }
    assert len(found) == 1


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["LOINC//1", "RACE//X"])])
def test_dictionary_encoded_codes_are_counted_as_strings_are(kind: type[pl.Categorical] | pl.Enum) -> None:
    rows = [(who, code, float(who)) for who in range(9) for code in ("LOINC//1", "RACE//X")]
    view = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    plain, encoded = (count_shard(v, "salt") for v in (view, view.with_columns(pl.col("code").cast(kind))))
    assert encoded.events == plain.events
    assert plain.events.keys() == {"LOINC//1"}
    assert sorted(encoded.values["LOINC//1"]) == sorted(plain.values["LOINC//1"])
