"""What follows from the order of the risks, for every bootstrap draw, in one walk down the sorted rows.

Rows are sorted once per model and task and cut into groups: rows without an event, one row with an event, or rows that
tie with an event among them. Groups without events only add up counts. On the way down the kernel notes how many
events and others lie above given places: net benefit and sensitivity at fixed alert rates follow from that.

The kernels are compiled when first called and not cached on disk: numba's cache unpickles what it finds there. They
assign element by element, for whole arrays take more than twice as long to compile.
Heavy import (numba): only evaluation's own work imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ml.evaluation.bootstrap import WIDTH, Counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
OTHERS, EVENT, TIE = 0, 1, 2
SPARSE = 64  # rows between two places at which it is known how many were alerted so far


@dataclass(frozen=True)
class Order:
    """Rows of one model on one task, highest risk first.

    Attributes:
        patient: (rows,), column of the counts.
        event: bool (rows,).
        last: bool (rows,), whether the next row has another risk.
        start: (groups + 1,), first row of each group, and the number of rows.
        kind: int8 (groups,), ``OTHERS``, ``EVENT`` or ``TIE``.
        places: (places,), rising numbers of rows from the top, none of which cuts a tie; 0 is the first.
        cuts: index into ``places`` of each cut that was asked for.
    """

    patient: Ints
    event: NDArray[np.bool_]
    last: NDArray[np.bool_]
    start: Ints
    kind: NDArray[np.int8]
    places: Ints
    cuts: NDArray[np.int64]


def order(y: NDArray[np.bool_], p: Floats, patient: NDArray[np.integer], cuts: NDArray[np.integer]) -> Order:
    """Sort rows and cut them into groups; there must be at least one row.

    ``cuts``: numbers of rows from the top at which to note what lies above; none may cut a tie.
    """
    rank = np.argsort(-p, kind="stable")
    risk, event = p[rank], y[rank]
    last = np.append(risk[1:] != risk[:-1], True)
    ends = np.flatnonzero(last) + 1
    first = np.append(0, ends[:-1])
    events = np.add.reduceat(event.astype(np.int64), first)
    kind = np.where(events == 0, OTHERS, np.where(ends - first == 1, EVENT, TIE))
    sparse = ends[np.searchsorted(ends, np.arange(SPARSE, len(p), SPARSE))]
    places = np.unique(np.concatenate([[0, len(p)], cuts, sparse]))
    keep = (kind != OTHERS) | np.append(True, kind[:-1] != OTHERS) | np.isin(first, places)
    return Order(
        patient=patient[rank].astype(np.int32),
        event=event,
        last=last,
        start=np.append(first[keep], len(p)).astype(np.int32),
        kind=kind[keep].astype(np.int8),
        places=places.astype(np.int32),
        cuts=np.searchsorted(places, cuts),
    )


@dataclass(frozen=True)
class Ranked:
    """What the walk found, by draw.

    Attributes:
        auroc: (draws,), ties count half; NaN where a draw has one class.
        auprc: (draws,), average precision; NaN where a draw has one class.
        events, others: (draws,), weight of the rows with and without the event.
        events_above, others_above: (cuts, draws), weight of events and others above each cut.
        caught: (rates, draws), weight of events among the alerted; those who tie at the border are alerted by lot,
            and this is what to expect.
    """

    auroc: Floats
    auprc: Floats
    events: NDArray[np.int64]
    others: NDArray[np.int64]
    events_above: NDArray[np.int64]
    others_above: NDArray[np.int64]
    caught: Floats


@njit(nogil=True, error_model="numpy")
def _walk(patient: Any, event: Any, start: Any, kind: Any, places: Any, block: Any, above: Any, curve: Any) -> None:
    """Walk down one block: ``above`` int32 (places, 2, WIDTH) events and others above; ``curve`` (2, WIDTH) areas."""
    width = block.shape[1]
    positives, negatives = np.zeros(width, np.int32), np.zeros(width, np.int32)  # above the group at hand
    tied, tied_others = np.zeros(width, np.int32), np.zeros(width, np.int32)
    discordant, precision = np.zeros(width), np.zeros(width)
    place = 0
    for g in range(kind.shape[0]):
        a, z = start[g], start[g + 1]
        if a == places[place]:
            for k in range(width):
                above[place, 0, k], above[place, 1, k] = positives[k], negatives[k]
            place += 1
        if kind[g] == OTHERS:
            for i in range(a, z):
                weight = block[patient[i]]
                for k in range(width):
                    negatives[k] += weight[k]
            continue
        for k in range(width):
            tied[k] = tied_others[k] = 0
        for i in range(a, z):
            weight = block[patient[i]]
            if event[i]:
                for k in range(width):
                    tied[k] += weight[k]
            else:
                for k in range(width):
                    tied_others[k] += weight[k]
        for k in range(width):
            discordant[k] += np.float64(tied[k]) * (negatives[k] + 0.5 * tied_others[k])
            positives[k] += tied[k]
            negatives[k] += tied_others[k]
            precision[k] += tied[k] * (np.float64(positives[k]) / max(positives[k] + negatives[k], 1))
    for k in range(width):
        above[place, 0, k], above[place, 1, k] = positives[k], negatives[k]
        curve[0, k], curve[1, k] = discordant[k], precision[k]


@njit(nogil=True, error_model="numpy")
def _alerted(patient: Any, event: Any, last: Any, places: Any, block: Any, above: Any, k: int, wanted: float) -> float:
    """Events of draw ``k`` among the ``wanted`` rows (by weight) of highest risk."""
    low, high = 0, places.shape[0] - 1  # the last place that does not exceed what is wanted
    while low < high:
        middle = (low + high + 1) // 2
        if above[middle, 0, k] + above[middle, 1, k] <= wanted:
            low = middle
        else:
            high = middle - 1
    events = np.float64(above[low, 0, k])
    left = wanted - events - above[low, 1, k]
    tied = tied_events = np.int64(0)
    for i in range(places[low], patient.shape[0]):
        weight = np.int64(block[patient[i], k])
        tied += weight
        if event[i]:
            tied_events += weight
        if last[i]:
            if tied >= left:
                return events + (tied_events * left / tied if tied > 0 else 0.0)
            events += tied_events
            left -= tied
            tied = tied_events = np.int64(0)
    return events


@njit(nogil=True, error_model="numpy")
def _rank(
    patient: Any, event: Any, last: Any, start: Any, kind: Any, places: Any, blocks: Any, rates: Any, marks: Any,
    curves: Any, totals: Any, noted: Any, caught: Any,
) -> None:  # fmt: skip
    above = np.empty((places.shape[0], 2, WIDTH), np.int32)
    for b in range(blocks.shape[0]):
        _walk(patient, event, start, kind, places, blocks[b], above, curves[b])
        for k in range(WIDTH):
            totals[b, 0, k], totals[b, 1, k] = above[places.shape[0] - 1, 0, k], above[places.shape[0] - 1, 1, k]
            for t in range(marks.shape[0]):
                noted[b, t, 0, k], noted[b, t, 1, k] = above[marks[t], 0, k], above[marks[t], 1, k]
            rows = np.float64(totals[b, 0, k]) + totals[b, 1, k]
            for r in range(rates.shape[0]):
                caught[b, r, k] = _alerted(patient, event, last, places, blocks[b], above, k, rates[r] * rows)


def _by_draw(found: NDArray[Any], draws: int) -> NDArray[Any]:
    """(blocks, …, WIDTH) → (…, draws)."""
    joined = np.moveaxis(found, 0, -2)
    return joined.reshape(*joined.shape[:-2], -1)[..., :draws]


def rank(rows: Order, counts: Counts, rates: tuple[float, ...]) -> Ranked:
    """Walk down the rows in every draw; ``rates`` are shares of the rows that are alerted."""
    blocks = len(counts.blocks)
    curves = np.empty((blocks, 2, WIDTH))
    totals = np.empty((blocks, 2, WIDTH), np.int64)
    noted = np.empty((blocks, len(rows.cuts), 2, WIDTH), np.int64)
    caught = np.empty((blocks, len(rates), WIDTH))
    _rank(
        rows.patient, rows.event, rows.last, rows.start, rows.kind, rows.places, counts.blocks,
        np.asarray(rates, np.float64), rows.cuts, curves, totals, noted, caught,
    )  # fmt: skip
    events, others = _by_draw(totals, counts.draws)
    discordant, precision = _by_draw(curves, counts.draws)
    events_above, others_above = np.moveaxis(_by_draw(noted, counts.draws), 1, 0)
    both = (events > 0) & (others > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = np.where(both, 1 - discordant / (events * others.astype(np.float64)), np.nan)
        auprc = np.where(both, precision / events, np.nan)
    return Ranked(auroc, auprc, events, others, events_above, others_above, _by_draw(caught, counts.draws))
