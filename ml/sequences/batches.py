"""Length-bucketed batches: positions per token stay near 1, where padding to the longest wastes most of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.sequences.form import CompiledForm, Shown, concatenated, serial_numbers, spans
from ml.sequences.packing import Int32, Int64
from ml.sequences.tokens import UNKNOWN_AGE, Bool, Sequences
from ml.sequences.vocabulary import PAD

MULTIPLE = 16  # lengths are padded to multiples of this
WINDOW = 4096  # sequences sorted by length at once: large enough for tight buckets, small enough to shuffle
AT_ONCE = 8192  # sequences whose lengths are found at once


@dataclass(frozen=True)
class Batch:
    """Padded arrays ``[batch, length]``; ``items`` says which sequences they are.

    Attributes:
        items: ``[batch]`` positions in the list the plan was made for.
        lengths: ``[batch]`` real tokens; the rest is [PAD].
        serial: place of a token in its visit, from 0; 0 for what is static.
        now: ``[batch]`` index day, days since 1970; a token's own day is ``now - days``.
        long_stays: ``[batch]`` see `Sequences`.
    """

    items: Int64
    lengths: Int64
    tokens: Int32
    ages: Int32
    days: Int32
    visits: Int32
    serial: Int32
    now: Int32
    long_stays: Bool


@dataclass(frozen=True)
class Item:
    """Many sequences by reference: sequence i is ``stores[store[i]]``, subject row ``row[i]``."""

    stores: Sequence[Sequences]
    store: Int64
    row: Int64

    def lengths(self, form: CompiledForm) -> Int64:
        """``[n]`` tokens of each sequence in a form."""
        if form.as_stored:
            return np.minimum(self._of_stores("lengths"), form.form.longest)
        parts = [
            np.diff(form.show(stored(self, np.arange(start, min(start + AT_ONCE, self.row.size)))).offsets)
            for start in range(0, self.row.size, AT_ONCE)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _of_stores(self, name: str) -> Int64:
        values = np.zeros(self.store.size, np.int64)
        for number, store in enumerate(self.stores):
            mine = self.store == number
            values[mine] = getattr(store, name)[self.row[mine]]
        return values


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


def gather(source: Item, items: Int64, form: CompiledForm) -> Batch:
    """The arrays of some sequences in a form, padded."""
    shown = form.show(stored(source, items, form.form.longest if form.as_stored else None))
    lengths = np.diff(shown.offsets)
    width = padded(int(lengths.max(initial=1)))
    place = spans(np.arange(items.size) * width, lengths)
    fills = {"tokens": PAD, "ages": UNKNOWN_AGE, "days": 0, "visits": 0, "serial": 0}
    arrays = {}
    for name, fill in fills.items():
        array = np.full(items.size * width, fill, np.int32)
        array[place] = serial_numbers(shown) if name == "serial" else getattr(shown, name)
        arrays[name] = array.reshape(items.size, width)
    store, row = source.store[items], source.row[items]
    now, long_stays = np.zeros(items.size, np.int32), np.zeros(items.size, bool)
    for number in np.unique(store):
        mine = store == number
        now[mine] = source.stores[number].now[row[mine]]
        long_stays[mine] = source.stores[number].long_stays[row[mine]]
    return Batch(items, lengths, **arrays, now=now, long_stays=long_stays)


def stored(source: Item, items: Int64, longest: int | None = None) -> Shown:
    """Some sequences as the store has them, one after the other.

    Args:
        longest: of a sequence that is longer than this only as much is read as may be shown of it.
    """
    store, row = source.store[items], source.row[items]
    order = np.argsort(store, kind="stable")  # each store is read once
    parts = [_read(source.stores[n], row[order[store[order] == n]], longest) for n in np.unique(store)]
    if not parts:
        empty = np.zeros(0, np.int32)
        return Shown(np.zeros(1, np.int64), empty, empty, empty, empty)
    together = concatenated(parts)
    if np.array_equal(order, np.arange(order.size)):
        return together
    back = np.argsort(order, kind="stable")
    lengths = np.diff(together.offsets)[back]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    return together.take(spans(together.offsets[:-1][back], lengths), offsets)


def _read(store: Sequences, rows: Int64, longest: int | None) -> Shown:
    starts, ends = store.offsets[rows], store.offsets[rows + 1]
    lengths = ends - starts
    if longest is not None and lengths.max(initial=0) > 2 * longest:  # its head, for what is static, and its tail
        head = np.where(lengths > 2 * longest, longest, lengths)
        tail = lengths - head
        kept = np.minimum(tail, longest)
        pairs = np.stack((starts, ends - kept), axis=1).ravel(), np.stack((head, kept), axis=1).ravel()
        index, lengths = spans(*pairs), head + kept
    else:
        index = spans(starts, lengths)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    return Shown(offsets, store.tokens[index], store.ages[index], store.days[index], store.visits[index])


def _fill(order: Int64, lengths: Int64, budget: int) -> list[Int64]:
    """Cut a list ordered by length into batches; the last of a batch is its longest."""
    batches, start = [], 0
    for end in range(1, order.size + 1):
        next_width = padded(max(int(lengths[order[end]]), 1)) if end < order.size else 0
        if end == order.size or next_width * (end + 1 - start) > budget:
            batches.append(order[start:end])
            start = end
    return batches
