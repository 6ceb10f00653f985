"""The ceiling: each patient's one-year risk given the true state, recorded or not, which no record can tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.common.db import Connection, connect, fetch
from ml.common.errors import NotFoundError
from ml.demo.generate import RECORDING, Preset, process_of
from ml.demo.people import LEAVE_RATE
from ml.demo.process import DEATH, LATENT, START, STROKE, FloatArray, IntArray, Process, month_starts
from ml.demo.records import (
    ACUTE_NEVER,
    CARRIED_DAYS,
    LATE_DAYS,
    LATE_SHARE,
    NEVER_SHARE,
)
from ml.demo.simulate import LATENT_MONTHS, NEVER
from ml.settings import Role

OUTCOMES = {
    "death": (DEATH,),
    "heart_failure": ("I50",),
    "stroke": STROKE,
    "type_2_diabetes": ("E11",),
}
HORIZON = 365
LATENT_LAG = sum(LATENT_MONTHS) // 2
VISITS_A_YEAR = 1.8  # about what the hospital sees of a patient; only for diseases known but not yet in the record


PEOPLE = """
    select person_id, born - %(start)s, entry - %(start)s, leaves - %(start)s, sex = 'F',
        frailty, glycaemia, heart, kidney
    from truth.people order by person_id
"""
ONSETS = """
    select person_id, category, began - %(start)s, onset - %(start)s, recorded_from - %(start)s, recording
    from truth.onsets
"""


@dataclass(frozen=True)
class Truth:
    """The true state of all n people, ordered by person_id. Days count from START.

    Attributes:
        person_id, born, entry, leave, sex: (n,). traits: (n, 4).
        began, onset, since: (n, D + 1) as in `Lives` and `Recording`; kind: (n, D + 1) index into RECORDING.
    """

    process: Process
    person_id: IntArray
    born: IntArray
    entry: IntArray
    leave: IntArray
    sex: IntArray
    traits: FloatArray
    began: IntArray
    onset: IntArray
    since: IntArray
    kind: NDArray[np.int8]


def read_truth() -> Truth:
    """Read the truth of the loaded demo hospital.

    Raises:
        NotFoundError: it is not loaded.
    """
    with connect(Role.TRUTH, readonly=True) as truth:
        process = _process(truth)
        people = fetch(truth, PEOPLE, {"start": START})
        onsets = fetch(truth, ONSETS, {"start": START})
    return _truth(process, people, onsets)


def read_process() -> Process:
    """The process of the loaded demo hospital.

    Raises:
        NotFoundError: it is not loaded.
    """
    with connect(Role.TRUTH, readonly=True) as truth:
        return _process(truth)


def _process(truth: Connection) -> Process:
    if not fetch(truth, "select 1 from pg_tables where schemaname = 'truth' and tablename = 'clock'"):
        raise NotFoundError("the demo hospital's truth is not there", "run: vigil demo load")
    return process_of(fetch(truth, "select preset from truth.clock")[0][0])


def truth_of(preset: Preset, folder: Path) -> Truth:
    """The truth of a hospital that `ml.demo.events.commit_hospital` wrote to ``folder``."""
    day = [(pl.col(name) - pl.lit(START)).dt.total_days() for name in ("born", "entry", "leaves")]
    traits = ("frailty", "glycaemia", "heart", "kidney")
    people = pl.read_parquet(folder / "people.parquet").select("person_id", *day, pl.col("sex") == "F", *traits)
    dates = [(pl.col(name) - pl.lit(START)).dt.total_days() for name in ("began", "onset", "recorded_from")]
    onsets = pl.read_parquet(folder / "onsets.parquet").select("person_id", "category", *dates, "recording")
    return _truth(process_of(preset), people.sort("person_id").rows(), onsets.rows())


def _truth(process: Process, people: list[tuple[Any, ...]], onsets: list[tuple[Any, ...]]) -> Truth:
    """From the rows of `PEOPLE` and `ONSETS`."""
    ids = np.array([row[0] for row in people])
    shape = (len(ids), process.death + 1)
    began, onset, since = (np.full(shape, NEVER, dtype=np.int64) for _ in range(3))
    kind = np.zeros(shape, dtype=np.int8)
    if onsets:
        number, what, *dates, words = (list(values) for values in zip(*onsets, strict=True))
        columns = process.columns
        place = np.searchsorted(ids, number), np.array([columns[name] for name in what])
        for target, days in zip((began, onset, since), dates, strict=True):
            target[place] = _days(days)
        kind[place] = [RECORDING.index(word) for word in words]
    born, entry, leave = (_days([row[k] for row in people]) for k in (1, 2, 3))
    sex = np.array([int(row[4]) for row in people])
    traits = np.array([row[5:] for row in people], dtype=np.float32)
    return Truth(process, ids, born, entry, leave, sex, traits, began, onset, since, kind)


def _days(values: list[int | None]) -> IntArray:
    return np.array([NEVER if value is None else value for value in values], dtype=np.int64)


def true_risks(truth: Truth, task: str, subjects: IntArray, days: IntArray) -> NDArray[np.float64]:
    """Probability that the outcome is recorded within 365 days.

    The hazards of the process given the true state on the day are summed month by month over the horizon, ages
    moving on, with death and moving away as competing events. Approximations: no disease that begins after the day
    changes the hazards; a cancer still unseen on the day is diagnosed after its mean lag; what is recorded late is
    recorded as often as an onset spread evenly over the horizon would be; visits come at an average rate. The state
    is the true one (with traits, unrecorded diseases and whether a person is still there), so this bounds what any
    reader of the record can reach; what the record itself tells is `ml.demo.oracle`.

    Args:
        subjects: (m,) person ids. days: (m,) first day of the horizon, days since START.

    Returns:
        (m,) risks.
    """
    process = truth.process
    row = np.searchsorted(truth.person_id, subjects)
    targets = [process.index(name) for name in OUTCOMES[task]]
    death = process.death
    alive = np.ones(len(row))
    risk = np.zeros(len(row))
    first = np.searchsorted(month_starts(), days, side="right") - 1
    factors = {t: _risk_of(truth, t, row, days) for t in {*targets, death}}
    begins = {t: _begins(truth, t, row, days) for t in targets}
    caught = {t: _catches_up(truth, t, row, days) for t in targets}
    for ahead in range(HORIZON // 28 + 1):
        years = _overlap(days, first + ahead)
        hazards = {t: _hazard(truth, factor, row, first + ahead) * years for t, factor in factors.items()}
        wanted = np.zeros(len(row))
        for t in targets:
            wanted += hazards[t] * begins[t] + caught[t] * years
        other = LEAVE_RATE * years + (0 if death in targets else hazards[death])
        total = wanted + other
        risk += alive * wanted / np.maximum(total, 1e-12) * -np.expm1(-total)
        alive *= np.exp(-total)
    here = (truth.leave[row] > days) & (truth.onset[row, death] >= days)
    return np.asarray(np.where(here, risk, 0.0))


def _overlap(days: IntArray, month: IntArray) -> NDArray[np.float64]:
    """Years that a calendar month and the horizon from ``days`` share; months beyond the calendar have 30 days."""
    starts = month_starts()
    last = len(starts) - 1
    beyond = np.maximum(month - last, 0) * 30
    low = starts[np.minimum(month, last)] + beyond
    high = np.where(month < last, starts[np.minimum(month + 1, last)], low + 30)
    return np.maximum(np.minimum(high, days + HORIZON) - np.maximum(low, days), 0) / 365.25


@dataclass(frozen=True)
class _Risk:
    """The hazard of one target for m rows. ``effects``: (month from which it holds, (m,), and hazard ratio)."""

    target: int
    constant: NDArray[np.float64]
    effects: list[tuple[IntArray, float]]


def _risk_of(truth: Truth, target: int, row: IntArray, days: IntArray) -> _Risk:
    """What multiplies a target's base hazard, given what had begun before ``days``."""
    process = truth.process
    loading, columns = process.loadings[target], process.columns
    traits = truth.traits[row]
    constant = np.exp((traits * loading).sum(axis=1) - 0.5 * (loading**2).sum()).astype(np.float64)
    effects = []
    for effect in process.effects:
        if columns[effect.target] == target:
            begins = truth.began if effect.kind == "prodrome" else truth.onset
            since = begins[row, columns[effect.source]]
            if effect.kind == "effect" and effect.source == LATENT:  # unseen yet: diagnosed after the usual lag
                began = truth.began[row, columns[LATENT]]
                hidden = (began < days) & (since >= days)
                month = np.searchsorted(month_starts(), began, side="right") + LATENT_LAG
                effects.append((np.where(hidden, month, NEVER), effect.hazard_ratio))
            month = np.searchsorted(month_starts(), since, side="right") + round(effect.latency_days / 30.44)
            month = np.where(since < truth.entry[row], -1, month)  # brought along: in force from entry on
            effects.append((np.where(since < days, month, NEVER), effect.hazard_ratio))
    return _Risk(target, constant, effects)


def _hazard(truth: Truth, risk: _Risk, row: IntArray, month: IntArray) -> NDArray[np.float64]:
    """Yearly hazard in a month."""
    process, starts = truth.process, month_starts()
    last = len(starts) - 1
    middle = starts[np.minimum(month, last)] + 15 + np.maximum(month - last, 0) * 30
    age = np.clip((middle - truth.born[row]) // 365.25, 0, 110).astype(np.int64)
    hazard = process.base[age, truth.sex[row], risk.target] * risk.constant
    for since, ratio in risk.effects:
        hazard *= np.where(since <= month, ratio, 1.0)
    return np.asarray(hazard)


def _begins(truth: Truth, target: int, row: IntArray, days: IntArray) -> NDArray[np.float64]:
    """Share of the hazard that becomes a record: 0 where a chronic disease is there already."""
    process = truth.process
    if target == process.death:
        return np.ones(len(row))
    if not process.chronic[target]:
        return np.full(len(row), 1 - ACUTE_NEVER)
    ratio = LATE_DAYS / HORIZON
    caught = 1 - ratio * -np.expm1(-1 / ratio)
    return np.where(truth.began[row, target] < days, 0.0, 1 - NEVER_SHARE - LATE_SHARE * (1 - caught))


def _catches_up(truth: Truth, target: int, row: IntArray, days: IntArray) -> NDArray[np.float64]:
    """Yearly rate at which a disease that is there, but not in the record, is written down."""
    process = truth.process
    if target == process.death or not process.chronic[target]:
        return np.zeros(len(row))
    there = truth.onset[row, target] < days
    rates = np.array([365.25 / CARRIED_DAYS, 365.25 / LATE_DAYS, 0.0])
    again = process.diseases[target].recode * VISITS_A_YEAR
    return np.where(there, np.where(truth.since[row, target] < days, again, rates[truth.kind[row, target]]), 0.0)
