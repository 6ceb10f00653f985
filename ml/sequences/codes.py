"""From codes and values to token ids: each distinct code is looked up once, each event only by number."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from ml.extraction.schema import BIRTH, DEATH, VISIT_END
from ml.sequences.packing import Int32
from ml.sequences.vocabulary import Vocabulary, bin_token

#: Not features: a birth is the age, a death ends the record, race and ethnicity are kept out of the
#: model, and that there was a visit, and until when, is said by its other events.
LEFT_OUT = rf"^({BIRTH}$|{DEATH}$|RACE//|ETHNICITY//|VISIT//|{VISIT_END})"
NO_FEATURE = -1
_left_out = re.compile(LEFT_OUT.replace("$", r"\Z"))


def starting_with(codes: pl.Series, prefix: str) -> pl.Expr:
    """Whether a code begins with a prefix; of a dictionary-encoded column only the categories are looked at."""
    if not isinstance(codes.dtype, (pl.Categorical, pl.Enum)):
        return pl.col(codes.name).str.starts_with(prefix)
    categories = codes.cat.get_categories()
    wanted = categories.filter(categories.str.starts_with(prefix)).to_list()
    return pl.any_horizontal(pl.lit(False), *(pl.col(codes.name) == code for code in wanted))


class Codebook:
    """The token of every code met so far, with and without a value.

    It begins with the vocabulary's own tokens and learns the codes it does not know as it meets them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._most_edges = max(map(len, vocabulary.bins.values()), default=0)
        self._known = pl.Enum([])
        self._dictionary: tuple[pl.DataType, int] | None = None
        self._tokens = np.empty((0, self._most_edges + 2), np.int32)  # of the code alone, then of its bins
        self._edges = np.empty((0, self._most_edges), np.float32)
        self._learn(list(dict.fromkeys([*vocabulary.tokens, *vocabulary.bins])))

    def token_ids(self, codes: pl.Series, values: pl.Series) -> Int32:
        """``[events]`` token ids; -1 where a code is no feature.

        A code that has value bins becomes the token of the bin that a finite value lies in.
        """
        number = self._numbers(codes)
        ids = self._tokens[:, 0][number]
        if not self._most_edges:
            return ids
        numeric = values.cast(pl.Float32).fill_null(np.nan).to_numpy()
        where = np.flatnonzero(self._binned[number] & np.isfinite(numeric))
        number, numeric = number[where], numeric[where]
        bins = np.ones(where.size, np.int32)
        for edge in self._edges.T:
            bins += edge[number] <= numeric  # never true of an edge that is not there
        ids[where] = self._tokens[number, bins]
        return ids

    def _numbers(self, codes: pl.Series) -> Int32:
        if isinstance(codes.dtype, (pl.Categorical, pl.Enum)):
            return self._numbers_of_categories(codes)[codes.to_physical().to_numpy()]
        return self._numbers_of_strings(codes)

    def _numbers_of_categories(self, codes: pl.Series) -> Int32:
        """``[categories]`` of a dictionary-encoded column; looked up once for all its pieces."""
        categories = codes.cat.get_categories()
        dictionary = (codes.dtype, len(categories))  # a dictionary only ever grows
        if self._dictionary != dictionary:
            self._by_category, self._dictionary = self._numbers_of_strings(categories), dictionary
        return self._by_category

    def _numbers_of_strings(self, codes: pl.Series) -> Int32:
        found = self._find(codes)
        unknown = np.flatnonzero(found < 0)
        if unknown.size:
            strange = codes.gather(unknown)
            self._learn(strange.unique().sort().to_list())
            found[unknown] = self._find(strange)
        return found

    def _find(self, codes: pl.Series) -> Int32:
        number = codes.cast(self._known, strict=False).to_physical().cast(pl.Int32)
        return number.fill_null(-1).to_numpy(writable=True)

    def _learn(self, codes: list[str]) -> None:
        edges = np.full((len(codes), self._most_edges), np.nan, np.float32)
        for row, code in zip(edges, codes, strict=True):
            known = self._vocabulary.bins.get(code, ())
            row[: len(known)] = known
        tokens = np.array([self._row(code) for code in codes], np.int32)
        self._edges = np.concatenate((self._edges, edges))
        self._tokens = np.concatenate((self._tokens, tokens))
        self._binned = self._tokens[:, 1] != NO_FEATURE
        self._known = pl.Enum([*self._known.categories, *codes])

    def _row(self, code: str) -> list[int]:
        width = self._most_edges + 2
        if _left_out.match(code):
            return [NO_FEATURE] * width
        edges = self._vocabulary.bins.get(code)
        ids = self._vocabulary.ids
        bins = [ids[bin_token(code, i)] for i in range(1, len(edges) + 2)] if edges else []
        row = [ids[code] if code in ids else self._vocabulary.lookup(code), *bins]
        return row + [NO_FEATURE] * (width - len(row))
