"""Subject ids become dense row numbers, through a table where the ids lie close together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ml.sequences.packing import Int32, Int64

SPARSEST = 8  # ids per event that a table may span, with 4 bytes for each
SLICE = 1 << 18


class Subjects:
    """The distinct subjects of a column.

    Attributes:
        ids: ``[n]`` subject ids, ascending.
    """

    ids: Int64
    _table: Int32 | None = None

    def __init__(self, column: pl.Series) -> None:
        self._lowest, span = _range(column)
        if span > SPARSEST * len(column):
            self.ids = column.unique().sort().to_numpy()
            return
        seen = np.zeros(span, bool)
        for part in _slices(column):
            seen[part - self._lowest] = True
        self.ids = np.flatnonzero(seen) + self._lowest
        self._table = np.cumsum(seen, dtype=np.int32) - np.int32(1)

    def rows(self, column: pl.Series) -> Int32:
        """``[events]`` row of each event's subject in `ids`."""
        if self._table is not None:
            return self._table[column.to_numpy() - self._lowest]
        places = pl.Series(np.arange(self.ids.size, dtype=np.int32))
        return column.replace_strict(pl.Series(self.ids), places, return_dtype=pl.Int32).to_numpy()


def _range(column: pl.Series) -> tuple[int, int]:
    """The lowest id and how many ids there could be from it to the highest."""
    lowest, highest = column.min(), column.max()
    if not isinstance(lowest, int) or not isinstance(highest, int):
        return 0, 0
    return lowest, highest - lowest + 1


def _slices(column: pl.Series) -> Iterator[Int64]:
    for start in range(0, len(column), SLICE):
        yield column.slice(start, SLICE).to_numpy()
