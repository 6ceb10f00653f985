"""Expected lives of the demo's people given what was recorded: hazards summed from 40 years before entry until today.

The state of a disease is not known, only how likely it is; an effect multiplies its target's hazard by
1 + P(source) (hazard ratio - 1), the mean over the source's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ml.demo.process import AGES, LATENT, Process
from ml.demo.recorded import Recorded
from ml.demo.records import ACUTE_NEVER, CARRIED_DAYS, CARRIED_LATE, LATE_DAYS, LATE_SHARE, NEVER_SHARE
from ml.demo.simulate import BURN_IN, NEVER

Floats = NDArray[np.float64]
YEAR = 365.25


@dataclass(frozen=True)
class Beliefs:
    """What is believed about n people, improved in turns.

    Attributes:
        known: (n, D) probability that a recorded disease is a true one, not a wrong code; 0 without a record.
        carried: (n, D) that a recorded disease began before entry.
        odds: (n, D) by what all else in the record multiplies the odds of an unrecorded disease.
        trait: (n, D + 1) mean of what the traits multiply each hazard by.
    """

    known: Floats
    carried: Floats
    odds: Floats
    trait: Floats

    @classmethod
    def first(cls, record: Recorded) -> Beliefs:
        """Every record is true and new, nothing else is known."""
        shape = record.first.shape
        return cls(
            (record.first < NEVER).astype(np.float64),
            np.zeros(shape),
            np.ones(shape),
            np.ones((shape[0], shape[1] + 1)),
        )


@dataclass(frozen=True)
class Histories:
    """Hazards of n people summed over their lives, at the believed means of their traits.

    Attributes:
        before: (n, D + 1) summed before entry. since: (n, D + 1) summed from entry until today, a chronic disease's
            until it began.
        unseen: (n, D) probability that a disease without a (true) record is there. had: (n, D) that a disease is.
        now: (n, D + 1) yearly hazards of the last year.
    """

    before: Floats
    since: Floats
    unseen: Floats
    had: Floats
    now: Floats


class Effects:
    """The effects of a process as arrays, and what they multiply hazards by."""

    def __init__(self, process: Process, kind: str = "effect") -> None:
        effects = [e for e in process.effects if e.kind == kind]
        columns = process.columns
        self.source = np.array([columns[e.source] for e in effects])
        self.target = np.array([columns[e.target] for e in effects])
        self.excess = np.array([e.hazard_ratio - 1 for e in effects])
        self.latency = np.array([e.latency_days for e in effects])

    def factor(self, had: Floats) -> Floats:
        """(n, D + 1) what hazards are multiplied by where each disease is there with these probabilities, (n, D)."""
        found = np.ones((had.shape[0], had.shape[1] + 1))
        for source, target, excess in zip(self.source, self.target, self.excess, strict=True):
            found[:, target] *= 1 + had[:, source] * excess
        return found


def live(process: Process, effects: Effects, record: Recorded, beliefs: Beliefs) -> Histories:
    """Sum the hazards of all lives under what is believed."""
    n, columns = len(record), process.death + 1
    before, since, now = (np.zeros((n, columns)) for _ in range(3))
    unseen, had = np.zeros((n, process.death)), np.zeros((n, process.death))
    closed = np.append(process.lethal, True)
    closed[process.index(LATENT)] = True
    never_open = np.zeros(columns, dtype=bool)
    never_open[[process.index(LATENT), process.death]] = True
    shares = np.where(process.chronic[:, None], (NEVER_SHARE, LATE_SHARE), (ACUTE_NEVER, 0.0))
    _live(
        process.base.astype(np.float64),
        closed,
        never_open,
        process.chronic,
        shares,
        effects.source,
        effects.target,
        effects.excess,
        (record.entry - record.born) // 365,
        record.born,
        record.sex,
        record.entry,
        record.today,
        record.first,
        beliefs.known,
        beliefs.carried,
        beliefs.odds,
        beliefs.trait,
        (before, since, unseen, had, now),
    )
    return Histories(before, since, unseen, had, now)


@njit(nogil=True)
def _multiply(source: Any, target: Any, excess: Any, had: Any, factor: Any) -> None:
    """`Effects.factor` of one person, in place."""
    factor[:] = 1.0
    for e in range(source.shape[0]):
        factor[target[e]] *= 1.0 + had[source[e]] * excess[e]


@njit(nogil=True)
def _live(
    base: Any,
    closed: Any,
    never_open: Any,
    chronic: Any,
    shares: Any,
    source: Any,
    target: Any,
    excess: Any,
    age_at_entry: Any,
    born: Any,
    sex: Any,
    entry: Any,
    today: int,
    first: Any,
    known: Any,
    carried: Any,
    odds: Any,
    trait: Any,
    out: Any,
) -> None:
    before, since, unseen, had, now = out
    n, diseases = first.shape
    factor, state = np.ones(diseases + 1), np.zeros(diseases)
    total, passed, hidden, begun = np.zeros(diseases), np.zeros(diseases), np.zeros(diseases), np.zeros(diseases)
    for i in range(n):
        in_care = today - entry[i]
        left = NEVER_SHARE + LATE_SHARE * np.exp(-in_care / LATE_DAYS)
        left += (1 - NEVER_SHARE - LATE_SHARE) * CARRIED_LATE * np.exp(-in_care / CARRIED_DAYS)
        total[:] = 1e-12
        passed[:] = 0.0
        for back in range(BURN_IN, 0, -1):
            age = age_at_entry[i] - back
            if age >= 0:
                for d in range(diseases):
                    if not never_open[d] and (back <= 2 or not closed[d]):
                        total[d] += base[min(age, AGES - 1), sex[i], d]
        for back in range(BURN_IN, 0, -1):
            age = age_at_entry[i] - back
            if age < 0:
                continue
            for d in range(diseases):
                here = 1 - np.exp(-before[i, d])
                rest = here * left / (here * left + 1 - here) if chronic[d] else here
                mine = carried[i, d] * passed[d] / total[d]
                if not chronic[d]:
                    mine += (1 - carried[i, d]) * here
                state[d] = known[i, d] * mine + (1 - known[i, d]) * rest
            _multiply(source, target, excess, state, factor)
            for d in range(diseases):
                if not never_open[d] and (back <= 2 or not closed[d]):
                    rate = base[min(age, AGES - 1), sex[i], d]
                    before[i, d] += rate * factor[d] * trait[i, d]
                    passed[d] += rate
        hidden[:] = 0.0
        for d in range(diseases):
            begun[d] = 1 - np.exp(-before[i, d])
        start = float(entry[i])
        while start < today:
            end = min(start + YEAR, float(today))
            middle, weight = (start + end) / 2, (end - start) / YEAR
            age = int(min(max((middle - born[i]) // YEAR, 0), AGES - 1))
            for d in range(diseases):
                there = (begun[d] * left if chronic[d] else begun[d]) + hidden[d]
                healthy = np.exp(-before[i, d] - since[i, d]) if chronic[d] else max(1 - there, 1e-3)
                rest = there * odds[i, d] / (healthy + there * odds[i, d])
                mine = 0.0
                if first[i, d] < today:
                    mine = min(max((end - max(float(first[i, d]), start)) / (end - start), 0.0), 1.0)
                    mine = max(mine, carried[i, d] if chronic[d] else begun[d])
                state[d] = known[i, d] * mine + (1 - known[i, d]) * rest
                unseen[i, d] = rest
                had[i, d] = known[i, d] + (1 - known[i, d]) * rest
            _multiply(source, target, excess, state, factor)
            for d in range(diseases + 1):
                hazard = base[age, sex[i], d] * factor[d] * trait[i, d]
                now[i, d] = hazard
                at_risk = 1.0
                if d < diseases and chronic[d] and known[i, d] > 0.5:
                    at_risk = min(max((min(float(first[i, d]), end) - start) / (end - start), 0.0), 1.0)
                    at_risk *= 1 - carried[i, d]
                since[i, d] += hazard * weight * at_risk
                if d < diseases:
                    late = shares[d, 1] * np.exp(-(today - middle) / LATE_DAYS)
                    hidden[d] += hazard * weight * (shares[d, 0] + late)
            start += YEAR
