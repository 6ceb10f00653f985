"""What the record tells of the demo's people beyond itself: traits, diseases not recorded, whether they are there.

Traits: points of a quasi-random normal sample, weighted by how likely they make the recorded diseases, the diseases
that did not come, laboratory values and visits. Diseases: expected states (`ml.demo.histories`), corrected for what
would have followed had they been there, and for wrong codes. The two are improved in turns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml.demo.histories import YEAR, Beliefs, Effects, Histories, live
from ml.demo.people import LEAVE_RATE
from ml.demo.process import TRAITS, Lab, Process
from ml.demo.recorded import Recorded
from ml.demo.records import (
    ACUTE_NEVER,
    CARRIED_DAYS,
    CARRIED_LATE,
    LATE_DAYS,
    LATE_SHARE,
    NEVER_SHARE,
    WRONG_CODE,
)
from ml.demo.simulate import MOST_VISITS, NEVER, VISITS, VISITS_PER_DISEASE

Floats = NDArray[np.float64]
POINTS = 512  # of the sample of the traits
TURNS = 3
EAGER = 0.3  # of frailty on the log rate of visits, see `ml.demo.simulate`
ABSENT_AFTER = 200  # days after the last visit that still count as in care
BOUND = 8.0  # of a log likelihood ratio
OUTLIER = 4.0  # standard deviations: a slipped decimal point


@dataclass(frozen=True)
class Posterior:
    """What is known of n people on the day.

    Attributes:
        weights: (n, POINTS) of the sample's points, summing to one.
        known, histories: as in `Beliefs` and `Histories`.
        factors: (n, D + 1) what diseases multiply each hazard by, at the middle of the next year.
        here: (n,) probability of still being in care.
        visit_rate: (n,) visits a year.
        residual: (tests,) value, or its logarithm, less what the recorded diseases let expect at mean traits, cut where
            neither traits nor a disease can be the cause.
    """

    record: Recorded
    weights: Floats
    known: Floats
    histories: Histories
    factors: Floats
    here: Floats
    visit_rate: Floats
    residual: Floats


@lru_cache(maxsize=1)
def trait_points() -> Floats:
    """(POINTS, 4) standard normal, the same at every call."""
    from scipy.stats import norm, qmc

    return np.asarray(norm.ppf(qmc.Sobol(len(TRAITS), seed=1).random(POINTS)))


def trait_factors(process: Process) -> Floats:
    """(POINTS, D + 1) what each point multiplies the hazards by."""
    loadings = process.loadings.astype(np.float64)
    return np.asarray(np.exp(trait_points() @ loadings.T - 0.5 * (loadings**2).sum(axis=1)))


def infer(process: Process, record: Recorded) -> Posterior:
    """Weigh what could be behind the record."""
    effects, factors, points = Effects(process), trait_factors(process), trait_points()
    beliefs = Beliefs.first(record)
    for _ in range(TURNS):
        histories = live(process, effects, record, beliefs)
        known = _known(process, effects, record, beliefs, histories)
        beliefs = replace(
            beliefs,
            carried=_carried(process, record, histories),
            odds=_odds(process, effects, record, beliefs, histories),
            known=known,
        )
        residual = _residual(process, record, beliefs)
        log = _from_diseases(process, record, beliefs, histories, factors)
        log += _from_tests(process, record, residual) + _from_visits(process, record, beliefs)
        weights = np.exp(log - log.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        beliefs = replace(beliefs, trait=weights @ factors)
    soon = 1 - np.exp(-histories.now[:, :-1] / 2)
    routine = np.minimum(VISITS + VISITS_PER_DISEASE * _ill(process, beliefs.known), MOST_VISITS)
    visits = routine * (weights @ np.exp(EAGER * points[:, 0])) + _codings(process, record, histories)
    unseen_for = (record.today - record.last) / YEAR
    return Posterior(
        record=record,
        weights=weights,
        known=beliefs.known,
        histories=histories,
        factors=effects.factor(histories.had + (1 - histories.had) * soon),
        here=1 / (1 + LEAVE_RATE * np.expm1(visits * unseen_for) / visits),
        visit_rate=visits,
        residual=residual,
    )


def _ill(process: Process, known: Floats) -> Floats:
    return np.asarray((known * process.chronic).sum(axis=1))


def _codings(process: Process, record: Recorded, histories: Histories) -> Floats:
    """Visits a year at which something new is coded."""
    open_ = ~process.chronic | (record.first >= NEVER)
    share = np.where(process.chronic, 1 - NEVER_SHARE - LATE_SHARE, 1 - ACUTE_NEVER)
    return np.asarray((histories.now[:, :-1] * open_ * share).sum(axis=1))


def _carried(process: Process, record: Recorded, histories: Histories) -> Floats:
    """P(a recorded chronic disease began before entry), by the day of its first coding."""
    days = np.clip(record.first - record.entry[:, None], 0, 5_000)
    prompt = 1 - NEVER_SHARE - LATE_SHARE
    at_first_visit = np.where(days == 0, 1 - CARRIED_LATE, CARRIED_LATE * np.exp(-days / CARRIED_DAYS) / CARRIED_DAYS)
    brought = -np.expm1(-histories.before[:, :-1])
    brought = brought * (prompt * at_first_visit + LATE_SHARE * np.exp(-days / LATE_DAYS) / LATE_DAYS)
    fresh = histories.since[:, :-1] / np.maximum(record.today - record.entry, 30)[:, None]
    is_chronic = process.chronic & (record.first < NEVER)
    return np.where(is_chronic, brought / np.maximum(brought + fresh, 1e-12), 0.0)


def _known(process: Process, effects: Effects, record: Recorded, beliefs: Beliefs, histories: Histories) -> Floats:
    """P(a recorded disease is no wrong code). Coded twice it is true; coded once it may never have been coded again,
    or never been there, and have been survived too long for what it is.
    """
    who, what = np.nonzero(record.mentions == 1)
    begun = histories.since[who, what] + np.where(process.chronic[what], histories.before[who, what], 0)
    recode = np.array([d.recode for d in process.diseases])
    silent = np.where(process.chronic[what], (1 - recode[what]) ** record.later[who, what], 1.0)
    share = np.clip((record.today - record.first) / np.maximum(record.today - record.entry, 30)[:, None], 0, 1)
    log = np.zeros_like(beliefs.known)
    for source, target, excess in zip(effects.source, effects.target, effects.excess, strict=True):
        alone = histories.since[:, target] / (1 + beliefs.known[:, source] * excess)
        log[:, source] -= excess * alone * share[:, source]
    true = -np.expm1(-begun) * silent * np.exp(np.clip(log[who, what], -BOUND, BOUND))
    wrong = record.codings[who] * WRONG_CODE / process.death
    known = (record.mentions > 1).astype(np.float64)
    known[who, what] = true / (true + wrong)
    return known


def _odds(process: Process, effects: Effects, record: Recorded, beliefs: Beliefs, histories: Histories) -> Floats:
    """What came, and did not come, of all that a disease without a record would have made likelier."""
    came = np.where(process.chronic, beliefs.known, record.episodes * beliefs.known)
    log = np.zeros_like(beliefs.known)
    for source, target, excess in zip(effects.source, effects.target, effects.excess, strict=True):
        summed = histories.since[:, target].copy()
        if target < process.death:
            log[:, source] += came[:, target] * np.log1p(excess)
            if process.chronic[target]:
                summed += histories.before[:, target] / 2  # on average it began half-way
        log[:, source] -= excess * summed / (1 + histories.unseen[:, source] * excess)
    return np.asarray(np.exp(np.clip(log, -BOUND, BOUND)))


def _from_diseases(
    process: Process, record: Recorded, beliefs: Beliefs, histories: Histories, factors: Floats
) -> Floats:
    """(n, POINTS) log likelihood of the diseases that came and of those that did not."""
    chronic, trait = process.chronic, np.maximum(beliefs.trait, 1e-6)
    lived = histories.since / trait
    before = (histories.before / trait)[:, :-1]
    share = np.where(record.first < NEVER, beliefs.carried / 2, 1.0)  # a chronic one came half-way, on average
    lived[:, :-1] += np.where(chronic, share * before, 0)
    came = np.where(chronic, beliefs.known, record.episodes * beliefs.known)
    return np.asarray(came @ np.log(factors[:, :-1]).T - lived @ factors.T)


def _residual(process: Process, record: Recorded, beliefs: Beliefs) -> Floats:
    """`Posterior.residual`."""
    labs, who = process.labs, record.test_person
    value = np.where(_of(labs, "log")[record.test] > 0, np.log(np.maximum(record.value, 1e-3)), record.value)
    residual = value - _of(labs, "base")[record.test]
    for effect in process.lab_effects:
        of = record.test == effect.lab
        person, day = who[of], record.test_day[of]
        known, disease = beliefs.known[person, effect.disease], effect.disease
        there = np.where(record.first[person, disease] <= day, known, known * beliefs.carried[person, disease])
        residual[of] -= effect.shift * there
    limit = _limits(process)
    for effect in process.lab_effects:
        limit[effect.lab] = max(limit[effect.lab], _limits(process)[effect.lab] + abs(effect.shift))
    return np.asarray(np.clip(residual, -limit[record.test], limit[record.test]))


def _limits(process: Process) -> Floats:
    """(labs,) residuals at mean traits beyond which something else is the cause."""
    return np.asarray(OUTLIER * np.hypot(_of(process.labs, "person_sd"), _of(process.labs, "noise_sd")))


def _of(labs: tuple[Lab, ...], name: str) -> Floats:
    return np.array([float(getattr(lab, name)) for lab in labs])


def values_of(record: Recorded, residual: Floats, lab: int, from_day: Floats | None = None) -> tuple[Floats, Floats]:
    """(n,) number and sum of the residuals of a test, all or those from a day on, which is (n,)."""
    of = record.test == lab
    if from_day is not None:
        of &= record.test_day >= from_day[record.test_person]
    n, who = len(record), record.test_person[of]
    count, total = np.bincount(who, minlength=n), np.bincount(who, residual[of], minlength=n)
    return count.astype(np.float64), total.astype(np.float64)


def _from_tests(process: Process, record: Recorded, residual: Floats) -> Floats:
    """(n, POINTS) log likelihood of the tests' mean residuals."""
    log = np.zeros((len(record), POINTS))
    for number, lab in enumerate(process.labs):
        loadings = np.array(lab.loadings)
        if not loadings.any():
            continue
        count, total = values_of(record, residual, number)
        has = np.flatnonzero(count)
        mean = np.clip(total[has] / count[has], -_limits(process)[number], _limits(process)[number])
        variance = lab.person_sd**2 + lab.noise_sd**2 / count[has]
        log[has] -= (mean[:, None] - trait_points() @ loadings) ** 2 / (2 * variance[:, None])
    return log


def _from_visits(process: Process, record: Recorded, beliefs: Beliefs) -> Floats:
    """(n, POINTS) log likelihood of the number of routine visits."""
    span = np.maximum(record.today - record.entry, 1)[:, None]
    ill_for = np.clip(
        (record.today - np.maximum(np.minimum(record.first, record.today), record.entry[:, None])) / span, 0, 1
    )
    ill = (ill_for * beliefs.known * process.chronic).sum(axis=1)
    in_care = np.maximum(np.minimum(record.today, record.last + ABSENT_AFTER) - record.entry, 30) / YEAR
    expected = np.minimum(VISITS + VISITS_PER_DISEASE * ill, MOST_VISITS) * in_care
    frailty = EAGER * trait_points()[:, 0]
    return np.asarray(record.routine[:, None] * frailty - expected[:, None] * np.exp(frailty))
