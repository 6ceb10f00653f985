"""The vocabulary: which code and value becomes which token id. Deterministic, append-only, with a digest.

A token is a special, a code (``ICD10CM//I50.9``, ``ATC//A10BA02``, ``GENDER//F``) or a code with a value bin
(``LOINC//4548-4//Q3``). A rare or unknown code falls back on its longest known prefix, so categories of
diagnoses and groups of drugs are tokens too; `parents` gives each token its category, whose embedding it shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_json, write_json
from ml.sequences.packing import check_tokens

SPECIALS = ("[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]")
PAD, UNK, MASK, CLS, SEP = range(5)
MINIMUM_COUNT = 5  # a code seen less often in training is its prefix
VALUE_BINS = 5
MINIMUM_VALUES = 50  # numeric values of a code before its bins are worth learning
#: Characters of a category after the vocabulary's prefix: below them a prefix means nothing.
CATEGORY = {"ICD10CM": 3, "ICD9CM": 3, "ATC": 4}

Edges = tuple[float, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and the inner edges of the value bins of each code that has them.

    Attributes:
        tokens: position is the id; specials first, then by sorted order of each build.
        bins: code → ascending inner edges (float32 values); a value lies in bin ``1 + #edges <= value``.
        built_from: what it was learned from, for reuse; not part of the digest.
    """

    tokens: tuple[str, ...]
    bins: dict[str, Edges]
    built_from: str = ""

    @property
    def size(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of tokens and bins; travels with every model."""
        return sha256_json({"tokens": self.tokens, "bins": self.bins})

    @cached_property
    def parents(self) -> npt.NDArray[np.int32]:
        """``[size]``: the id of each token's category, PAD where it has none."""
        return np.array([self._parent(token) for token in self.tokens], np.int32)

    def lookup(self, code: str) -> int:
        """Id of a code without its value: itself, else its longest known prefix, else UNK."""
        for candidate in prefixes(code):
            if candidate in self.ids:
                return self.ids[candidate]
        return UNK

    def extends(self, older: Vocabulary) -> bool:
        """Whether every id and bin of ``older`` means the same here."""
        same_bins = all(self.bins.get(code) == edges for code, edges in older.bins.items())
        return same_bins and self.tokens[: older.size] == older.tokens

    def save(self, path: Path) -> None:
        write_json(
            path,
            {"tokens": self.tokens, "bins": self.bins, "built_from": self.built_from, "digest": self.digest},
        )

    def _parent(self, token: str) -> int:
        code, _, bin_name = token.rpartition("//Q")
        if bin_name.isdigit() and code in self.ids:
            return self.ids[code]
        found = category(token)
        return PAD if found is None or found == token else self.ids.get(found, PAD)


#: What a first vocabulary grows from.
EMPTY = Vocabulary(SPECIALS, {})


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary and check its digest.

    Raises:
        VigilError: the file is absent or not what was written.
    """
    try:
        content: dict[str, Any] = read_json(path)
        bins = {code: tuple(edges) for code, edges in content["bins"].items()}
        vocabulary = Vocabulary(tuple(content["tokens"]), bins, content.get("built_from", ""))
    except (OSError, ValueError, KeyError, TypeError):
        raise VigilError(f"the vocabulary {path} cannot be read", "prepare the sequences of this run again") from None
    if vocabulary.digest != content.get("digest"):
        raise VigilError(f"the vocabulary {path} does not match its digest", "prepare the sequences again")
    if vocabulary.tokens[: len(SPECIALS)] != SPECIALS:
        raise VigilError(
            f"the vocabulary {path} is of an older version: it does not begin with {' '.join(SPECIALS)}",
            "train a new model from nothing (parameter full of the DAG retraining)",
        )
    return vocabulary


def category(code: str) -> str | None:
    """The category of a diagnosis or the group of a drug; None for other codes and for too short ones."""
    system, _, rest = code.partition("//")
    length = CATEGORY.get(system)
    if length is None:
        return None
    if system == "ICD9CM" and rest.startswith("E"):
        length += 1
    return f"{system}//{rest[:length]}" if len(rest) >= length else None


def prefixes(code: str) -> list[str]:
    """The code, then ever shorter prefixes of it down to its category."""
    shortest = category(code)
    if shortest is None:
        return [code]
    return [code[:end] for end in range(len(code), len(shortest) - 1, -1) if code[end - 1] != "."]


def grow(
    old: Vocabulary,
    counts: Mapping[str, int],
    values: Mapping[str, npt.NDArray[np.float32]],
    built_from: str = "",
) -> Vocabulary:
    """The old vocabulary with what is new appended in sorted order; old ids and bins never change.

    Args:
        old: the vocabulary so far, `EMPTY` for a first one.
        counts: events by code, of train-split patients.
        values: numeric values by code, of the same patients; they give the bins of new codes.
        built_from: digest of what the counts come from.

    Raises:
        VigilError: there would be more tokens than 15 bits tell apart.
    """
    kept = {code for code, count in _rolled_up(counts).items() if count >= MINIMUM_COUNT}
    kept |= {found for code in kept if (found := category(code)) is not None}
    bins = dict(old.bins)
    for code in sorted(kept - bins.keys()):
        edges = bin_edges(values.get(code, np.empty(0, np.float32)))
        if edges:
            bins[code] = edges
    tokens = kept | {bin_token(code, i) for code in kept & bins.keys() for i in range(1, len(bins[code]) + 2)}
    grown = old.tokens + tuple(sorted(tokens - set(old.tokens)))
    check_tokens(len(grown))
    return Vocabulary(grown, bins, built_from)


def bin_token(code: str, number: int) -> str:
    """The token of a code's value bin; bins count from 1."""
    return f"{code}//Q{number}"


def bin_edges(values: npt.NDArray[np.float32]) -> Edges:
    """Inner edges at equal quantiles; fewer where values repeat, none where there are too few."""
    values = values[np.isfinite(values)]
    if values.size < MINIMUM_VALUES:
        return ()
    edges = np.unique(np.quantile(values, np.arange(1, VALUE_BINS) / VALUE_BINS, method="nearest").astype(np.float32))
    # An edge of -0.0 becomes 0.0: the two are equal, so which of them a sort puts there is chance.
    return tuple(float(edge) + 0.0 for edge in edges if edge > values.min())


def _rolled_up(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts in which a rare code's events belong to its next shorter prefix, from the longest codes on."""
    total = dict(counts)
    for length in range(max(map(len, total), default=0), 0, -1):
        for code in sorted(code for code in total if len(code) == length):
            shorter = prefixes(code)[1:2]
            if total[code] < MINIMUM_COUNT and shorter:
                total[shorter[0]] = total.get(shorter[0], 0) + total[code]
    return total
