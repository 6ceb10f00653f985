"""What a model leans on: a code is taken out of a record, and the risk is asked for again (occlusion; Zeiler 2014).

It needs no gradient, so it says the same of every preset, pooling and head, the linear path included. The change in
log-odds is averaged over held-out patients who show the code; a group below ``min_cell`` is not told, a patient never.
It says what the model does with a code, not what the disease does, and codes that come together share their part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ml.cohorts.runs import TrainingRun
from ml.common.files import read_json, write_json
from ml.common.progress import Progress
from ml.sequences.batches import Item, stored
from ml.sequences.form import Shown, spans
from ml.sequences.tokens import Sequences
from ml.sequences.vocabulary import SPECIALS, load_vocabulary
from ml.settings import get_settings

log = logging.getLogger(__name__)
ATTRIBUTIONS = "attributions.json"
FORMAT = 1
CODES = 150  # the most frequent are tried …
PATIENTS = 30  # … each on at most so many patients, drawn by the seed
AT_ONCE = 4096  # records without a code that are in memory together
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Leaning(BaseModel):
    """What a code adds to the log-odds of an outcome where it is recorded.

    Attributes:
        token: of the vocabulary.
        patients: held-out patients in scope who show it.
        asked: of them, on whom it was tried.
        value, low, high: mean change in log-odds, after calibration, and its 95 % interval (normal, over patients).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    token: str
    patients: int
    asked: int
    value: float
    low: float
    high: float

    @property
    def certain(self) -> float:
        """How far the interval's nearer bound is from no change; 0 where the interval holds it."""
        return max(self.low, -self.high, 0.0)


class Attributions(BaseModel):
    """By outcome, the codes tried, most certain first.

    Attributes:
        weights: digest of the weights that were asked.
        day: the index day whose records they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    weights: str
    snapshot: str
    day: str
    outcomes: dict[str, tuple[Leaning, ...]]


def read_attributions(path: Path) -> Attributions | None:
    """The attributions beside an evaluation; None where there are none."""
    return Attributions.model_validate(read_json(path / ATTRIBUTIONS)) if (path / ATTRIBUTIONS).is_file() else None


def attribute(run: TrainingRun) -> Attributions:
    """Take codes out of held-out patients' records at the newest index day; writes ``attributions.json``. What was
    made from the same weights is kept.

    Raises:
        VigilError: the run has no model, no labels or no token stores.
    """
    import torch

    from ml.models.files import RECORD
    from ml.models.medbert import load_model
    from ml.training.data import labelled_data
    from ml.training.inference import logits_of
    from ml.training.precision import device

    model = load_model(run.finetuned).to(device())
    made_from = {"weights": read_json(run.finetuned / RECORD)["weights"], "snapshot": run.snapshot.digest}
    found = read_attributions(run.path)
    if found is not None and found.format == FORMAT and found.model_dump(include=set(made_from)) == made_from:
        return found
    torch.set_num_threads(1)  # threads work on batches
    vocabulary, outcomes = load_vocabulary(run.finetuned / "vocabulary.json"), model.config.outcomes
    data = labelled_data(run, vocabulary, tuple(outcomes), ("held_out",), (run.test_day,))
    slopes = np.array([slope for slope, _ in model.config.calibration] or np.ones(len(outcomes)))
    whole = logits_of(model, data.source)
    records = _records(data.source)
    chosen = _choose(records, model.config.longest, get_settings().min_cell, get_settings().seed)
    changes = np.empty((len(chosen.row), len(outcomes)))
    progress = Progress("model report", len(chosen.row))
    for part in _parts(len(chosen.row)):
        without = logits_of(model, _item(_without(records, chosen.row[part], chosen.token[part])))
        changes[part] = (whole[chosen.row[part]] - without) * slopes
        progress.report(part.stop, "records with a code taken out")
    in_scope = ~np.isnan(data.labels)
    made = Attributions(
        format=FORMAT,
        day=str(run.test_day),
        outcomes={
            name: _leanings(chosen, changes[:, k], in_scope[:, k], vocabulary.tokens) for k, name in enumerate(outcomes)
        },
        **made_from,
    )
    write_json(run.path / ATTRIBUTIONS, made.model_dump(mode="json"))
    return made


@dataclass(frozen=True)
class _Chosen:
    """Which code is taken out of which record, and by token all records that show it."""

    row: Ints
    token: Ints
    shown: dict[int, Ints]


def _records(source: Item) -> Sequences:
    """The records in memory, in order."""
    owners = list(zip(source.store.tolist(), source.row.tolist(), strict=True))
    now = np.array([source.stores[store].now[row] for store, row in owners], np.int32)
    long_stays = np.array([source.stores[store].long_stays[row] for store, row in owners], bool)
    return _sequences(stored(source, np.arange(source.row.size)), now, long_stays)


def _sequences(shown: Shown, now: NDArray[np.int32], long_stays: NDArray[np.bool_]) -> Sequences:
    rows = np.arange(shown.offsets.size - 1)
    return Sequences(
        subjects=rows,
        offsets=shown.offsets,
        tokens=shown.tokens,
        ages=shown.ages,
        days=shown.days,
        visits=shown.visits,
        now=now,
        long_stays=long_stays,
    )


def _item(records: Sequences) -> Item:
    rows = np.arange(records.offsets.size - 1)
    return Item([records], np.zeros(rows.size, np.int64), rows)


def _parts(total: int) -> Iterator[slice]:
    return (slice(start, min(start + AT_ONCE, total)) for start in range(0, total, AT_ONCE))


def _choose(records: Sequences, longest: int, least: int, seed: int) -> _Chosen:
    """The most frequent codes, and for each some of the records that show it to the model."""
    owner = np.repeat(np.arange(records.offsets.size - 1), records.lengths)
    from_end = records.offsets[1:][owner] - np.arange(owner.size)
    seen = ((records.visits == 0) | (from_end <= longest)) & (records.tokens >= len(SPECIALS))
    pairs = np.unique(np.stack((records.tokens[seen], owner[seen]), axis=1), axis=0)  # sorted by token, then record
    tokens, starts, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    frequent = [k for k in np.lexsort((tokens, -counts))[:CODES] if counts[k] >= least]
    rng = np.random.default_rng(seed)
    shown, row, token = {}, [], []
    for k in frequent:
        shown[int(tokens[k])] = pairs[starts[k] : starts[k] + counts[k], 1]
        drawn = rng.choice(shown[int(tokens[k])], min(PATIENTS, counts[k]), replace=False)
        row.append(np.sort(drawn))
        token.append(np.full(len(drawn), tokens[k]))
    empty = [np.empty(0, np.int64)]
    return _Chosen(np.concatenate(row or empty), np.concatenate(token or empty), shown)


def _without(records: Sequences, rows: Ints, tokens: Ints) -> Sequences:
    """Each record without its token."""
    lengths = records.lengths[rows]
    index = spans(records.offsets[:-1][rows], lengths)
    owner = np.repeat(np.arange(rows.size), lengths)
    kept = records.tokens[index] != np.repeat(tokens, lengths)
    index, left = index[kept], np.bincount(owner[kept], minlength=rows.size)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(left)))
    shown = Shown(offsets, *(getattr(records, name)[index] for name in ("tokens", "ages", "days", "visits")))
    return _sequences(shown, records.now[rows], records.long_stays[rows])


def _leanings(
    chosen: _Chosen, changes: Floats, in_scope: NDArray[np.bool_], names: tuple[str, ...]
) -> tuple[Leaning, ...]:
    """One outcome's codes, most certain first."""
    found = []
    least = get_settings().min_cell
    asked = in_scope[chosen.row]
    for token, rows in chosen.shown.items():
        values = changes[(chosen.token == token) & asked]
        if len(values) < least:
            continue
        mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
        low, high = (round(mean + sign * 1.96 * error, 4) for sign in (-1, 1))
        patients = int(in_scope[rows].sum())
        leaning = Leaning(
            token=names[token], patients=patients, asked=len(values), value=round(mean, 4), low=low, high=high
        )
        found.append(leaning)
    return tuple(sorted(found, key=lambda one: (-one.certain, one.token)))
