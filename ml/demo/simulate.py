"""Lives under the known process: when each disease begins, recurs and is seen, who visits, who dies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ml.demo.people import People
from ml.demo.process import LATENT, FloatArray, IntArray, Process, month_starts

NEVER = 1 << 30
BURN_IN = 40  # years lived before entry, in yearly steps, so that people come with a history
LATENT_MONTHS = (4, 15)  # of the unseen phase; chosen
VISITS, VISITS_PER_DISEASE, MOST_VISITS = 0.5, 0.07, 6.0  # a year; chosen


@dataclass(frozen=True)
class Lives:
    """What truly happened to n people. Days count from START.

    Attributes:
        people: who.
        began: (n, D + 1) day each disease began, NEVER where not; the last column is death.
        onset: (n, D + 1) day of its (first) diagnosis in truth; differs from ``began`` for the latent disease.
        episode_person, episode_disease, episode_day: later episodes of acute diseases.
        visit_person, visit_day: routine visits.
    """

    people: People
    began: IntArray
    onset: IntArray
    episode_person: IntArray
    episode_disease: IntArray
    episode_day: IntArray
    visit_person: IntArray
    visit_day: IntArray

    @property
    def gone(self) -> IntArray:
        """(n,) last day in care: death or moving away."""
        return np.minimum(self.people.leave, self.onset[:, -1])

    def take(self, chosen: IntArray) -> Lives:
        """The lives at these positions, in this order."""
        place = np.full(len(self.people), -1)
        place[chosen] = np.arange(len(chosen))
        episodes, visits = place[self.episode_person], place[self.visit_person]
        has_episode, has_visit = episodes >= 0, visits >= 0
        return Lives(
            self.people.take(chosen),
            self.began[chosen],
            self.onset[chosen],
            episodes[has_episode],
            self.episode_disease[has_episode],
            self.episode_day[has_episode],
            visits[has_visit],
            self.visit_day[has_visit],
        )


class _State:
    """Hazards of n people while time passes. A disease begins when its summed hazard passes a unit exponential."""

    def __init__(self, process: Process, people: People, rng: np.random.Generator) -> None:
        self.process, self.people, self.rng = process, people, rng
        n, columns = len(people), process.death + 1
        # Centred, so that the mean over people of the trait factor is one.
        centre = -0.5 * (process.loadings**2).sum(axis=1)
        # Summed term by term: a matrix product may round differently with another number of threads.
        factor = sum((people.traits[:, k, None] * process.loadings[:, k] for k in range(4)), start=centre[None, :])
        self.factor: FloatArray = np.exp(factor).astype(np.float32)
        self.ages = np.full(n, -1)
        self.rate = np.zeros((n, columns), dtype=np.float32)
        self.summed = np.zeros((n, columns), dtype=np.float32)
        self.limit = rng.standard_exponential((n, columns), dtype=np.float32)
        self.began = np.full((n, columns), NEVER, dtype=np.int64)
        self.onset = self.began.copy()
        self.column = process.columns
        self.by_source: dict[tuple[str, int], list[tuple[int, np.float32, int]]] = defaultdict(list)
        for e in process.effects:
            latency = round(e.latency_days / 30.44)
            ratio = np.float32(e.hazard_ratio)
            self.by_source[e.kind, self.column[e.source]].append((self.column[e.target], ratio, latency))

    def step(self, ages: IntArray, weight: FloatArray, opened: FloatArray | None = None) -> tuple[IntArray, IntArray]:
        """Let ``weight`` (n,) years pass; positions (people, columns) at which something begins."""
        birthday = np.flatnonzero(ages != self.ages)
        self.rate[birthday] = self.process.base[ages[birthday], self.people.sex[birthday]] * self.factor[birthday]
        self.ages = ages
        added = self.rate * weight[:, None]
        if opened is not None:
            added *= opened
        self.summed += added
        who, what = np.divmod(np.flatnonzero(self.summed >= self.limit), self.limit.shape[1])
        return who, what

    def multiply(self, who: IntArray, target: int, ratio: np.float32) -> None:
        """Change the hazard of one target for some people from now on."""
        self.factor[who, target] *= ratio
        self.rate[who, target] *= ratio

    def act(self, kind: str, who: IntArray, what: IntArray) -> list[tuple[int, IntArray, int, np.float32]]:
        """The effects that set in: (months from now, people, target, ratio)."""
        found = []
        for disease in np.unique(what):
            effects = self.by_source.get((kind, int(disease)))
            if effects:
                these = who[what == disease]
                found += [(latency, these, target, ratio) for target, ratio, latency in effects]
        return found


def simulate(process: Process, people: People, rng: np.random.Generator) -> Lives:
    """Live the 40 years before entry in yearly steps, and from entry in monthly steps until END."""
    state = _State(process, people, rng)
    _burn_in(state)
    return _live(state)


def _burn_in(state: _State) -> None:
    process, people, rng = state.process, state.people, state.rng
    closed = np.append(process.lethal, True)
    closed[process.index(LATENT)] = True
    for back in range(BURN_IN, 0, -1):
        ages = (people.entry - people.born) // 365 - back
        opened = np.ones_like(closed) if back <= 2 else ~closed
        opened[-1] = opened[process.index(LATENT)] = False
        weight = (ages >= 0).astype(np.float32)
        who, what = state.step(np.clip(ages, 0, 110), weight, opened.astype(np.float32))
        day = people.entry[who] - 365 * back + rng.integers(0, 365, len(who))
        state.began[who, what] = state.onset[who, what] = day
        state.limit[who, what] = np.inf
        for _, these, target, ratio in state.act("effect", who, what):
            state.multiply(these, target, ratio)
    # What is acute can come again.
    acute = np.flatnonzero(~process.chronic)
    state.summed[:, acute] = 0
    state.limit[:, acute] = rng.standard_exponential((len(people), len(acute)), dtype=np.float32)


def _live(state: _State) -> Lives:
    process, people, rng = state.process, state.people, state.rng
    starts, latent, death = month_starts(), process.index(LATENT), process.death
    chronic = np.append(process.chronic, False)
    pending: dict[int, list[tuple[IntArray, int, np.float32]]] = defaultdict(list)
    diagnoses: dict[int, list[IntArray]] = defaultdict(list)
    episodes: list[tuple[IntArray, IntArray, IntArray]] = []
    visits: list[tuple[IntArray, IntArray]] = []
    ill = ((state.onset[:, :-1] < NEVER) & process.chronic).sum(axis=1)
    gone = people.leave.copy()
    eager = np.exp(0.3 * people.traits[:, 0])
    for month in range(len(starts) - 1):
        first, length = starts[month], starts[month + 1] - starts[month]
        present = (people.entry < starts[month + 1]) & (gone > first)
        for who, target, ratio in pending.pop(month, []):
            state.multiply(who, target, ratio)
        ages = np.clip((first + 15 - people.born) // 365.25, 0, 110).astype(np.int64)
        who, what = state.step(ages, (present * (length / 365.25)).astype(np.float32))
        day = np.clip(first + rng.integers(0, length, len(who)), people.entry[who], None)
        is_first = state.began[who, what] == NEVER
        episodes.append((who[~is_first], what[~is_first], day[~is_first]))
        again = ~chronic[what] & (what != death)
        state.summed[who, what] = 0
        state.limit[who, what] = np.where(again, rng.standard_exponential(len(who), dtype=np.float32), np.inf)
        who, what, day = who[is_first], what[is_first], day[is_first]
        state.began[who, what] = day
        seen = what != latent
        state.onset[who[seen], what[seen]] = day[seen]
        hidden = who[~seen]
        for lag, person in zip(rng.integers(*LATENT_MONTHS, len(hidden)), hidden, strict=True):
            diagnoses[month + int(lag)].append(person)
        found = state.act("prodrome", hidden, np.full(len(hidden), latent))
        found += state.act("effect", who[seen], what[seen])
        due = np.array(diagnoses.pop(month, []), dtype=np.int64)
        due = due[gone[due] > first]
        state.onset[due, latent] = first + rng.integers(0, length, len(due))
        found += state.act("effect", due, np.full(len(due), latent))
        for latency, these, target, ratio in found:
            pending[month + 1 + latency].append((these, target, ratio))
        np.add.at(ill, who[chronic[what]], 1)
        died = who[what == death]
        gone[died] = np.minimum(gone[died], state.onset[died, death])
        wanted = np.minimum(VISITS + VISITS_PER_DISEASE * ill, MOST_VISITS) * eager * (length / 365.25)
        visitors = np.flatnonzero(present & (rng.random(len(people)) < wanted))
        visits.append((visitors, first + rng.integers(0, length, len(visitors))))
    e_who, e_what, e_day = (np.concatenate([e[k] for e in episodes]) for k in range(3))
    v_who, v_day = (np.concatenate([v[k] for v in visits]) for k in range(2))
    return Lives(people, state.began, state.onset, e_who, e_what, e_day, v_who, v_day)
