"""Length-bucketed batches: positions per token stay near 1, where padding to the longest wastes most of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.sequences.packing import Int32, Int64
from ml.sequences.tokens import UNKNOWN_AGE, Sequences
from ml.sequences.vocabulary import PAD

MULTIPLE = 16  # lengths are padded to multiples of this
WINDOW = 4096  # sequences sorted by length at once: large enough for tight buckets, small enough to shuffle
STATIC_TOKENS = 3  # [CLS] and static tokens that outlive a cut


@dataclass(frozen=True)
class Batch:
    """Padded arrays ``[batch, length]``; ``items`` says which sequences they are.

    Attributes:
        items: ``[batch]`` positions in the list the plan was made for.
        lengths: ``[batch]`` real tokens; the rest is [PAD].
    """

    items: Int64
    lengths: Int64
    tokens: Int32
    ages: Int32
    days: Int32
    visits: Int32


@dataclass(frozen=True)
class Item:
    """Many sequences by reference: sequence i is ``stores[store[i]]``, subject row ``row[i]``."""

    stores: Sequence[Sequences]
    store: Int64
    row: Int64

    def lengths(self, longest: int) -> Int64:
        """``[n]`` lengths after the cut."""
        lengths = np.zeros(self.store.size, np.int64)
        for number, store in enumerate(self.stores):
            mine = self.store == number
            lengths[mine] = store.lengths[self.row[mine]]
        return np.minimum(lengths, longest)


def plan(lengths: Int64, budget: int, rng: np.random.Generator | None = None, windows: bool = True) -> list[Int64]:
    """Batches of sequences of like length, each of at most ``budget`` positions (at least one sequence).

    Args:
        lengths: ``[n]`` tokens per sequence.
        budget: positions per batch, padding included.
        rng: shuffles sequences and batches; None keeps an order by length, for inference.
    """
    order = np.arange(lengths.size) if rng is None else rng.permutation(lengths.size)
    size = WINDOW if rng is not None and windows else max(lengths.size, 1)
    batches: list[Int64] = []
    for start in range(0, order.size, size):
        window = order[start : start + size]
        batches.extend(_fill(window[np.argsort(lengths[window], kind="stable")], lengths, budget))
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def padded(length: int) -> int:
    """The next multiple of 16."""
    return -(-length // MULTIPLE) * MULTIPLE


def cut(store: Sequences, row: int, longest: int) -> Int64:
    """Positions of a sequence in its store; a longer one keeps its first tokens ([CLS], static) and latest events."""
    chosen = np.arange(store.offsets[row], store.offsets[row + 1])
    if chosen.size <= longest:
        return chosen
    return np.concatenate((chosen[:STATIC_TOKENS], chosen[STATIC_TOKENS - longest :]))


def gather(source: Item, items: Int64, longest: int) -> Batch:
    """The arrays of some sequences, cut to ``longest`` and padded."""
    lengths = np.empty(items.size, np.int64)
    index: list[npt.NDArray[np.int64]] = []
    for position, item in enumerate(items):
        store, row = source.stores[source.store[item]], source.row[item]
        chosen = cut(store, int(row), longest)
        lengths[position] = chosen.size
        index.append(chosen)
    width = padded(int(lengths.max(initial=1)))
    shape = (items.size, width)
    arrays = {
        "tokens": np.full(shape, PAD, np.int32),
        "ages": np.full(shape, UNKNOWN_AGE, np.int32),
        "days": np.zeros(shape, np.int32),
        "visits": np.zeros(shape, np.int32),
    }
    for position, (item, chosen) in enumerate(zip(items, index, strict=True)):
        store = source.stores[source.store[item]]
        for name, array in arrays.items():
            array[position, : chosen.size] = getattr(store, name)[chosen]
    return Batch(items, lengths, **arrays)


def _fill(order: Int64, lengths: Int64, budget: int) -> list[Int64]:
    """Cut a list ordered by length into batches; the last of a batch is its longest."""
    batches, start = [], 0
    for end in range(1, order.size + 1):
        next_width = padded(max(int(lengths[order[end]]), 1)) if end < order.size else 0
        if end == order.size or next_width * (end + 1 - start) > budget:
            batches.append(order[start:end])
            start = end
    return batches
