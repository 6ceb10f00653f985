"""Diseases that are there without a record, and when they will get one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.demo.histories import YEAR, Effects
from ml.demo.posterior import Posterior, trait_factors, trait_points, values_of
from ml.demo.process import LATENT, LabEffect, Process
from ml.demo.records import CARRIED_DAYS, CARRIED_LATE, LATE_DAYS, LATE_SHARE, NEVER_SHARE
from ml.demo.simulate import LATENT_MONTHS, NEVER

Floats = NDArray[np.float64]
MONTH = YEAR / 12
BOUND = 50.0  # of a log likelihood ratio


@dataclass(frozen=True)
class Hidden:
    """Of n people without a record of a chronic disease.

    Attributes:
        absent: (n,) probability that it is not there. caught: (n,) that it is, and is recorded within the horizon.
    """

    absent: Floats
    caught: Floats


def hidden(process: Process, posterior: Posterior, disease: int, years: float) -> Hidden:
    """Weigh every time at which the disease may have begun, by its hazard, by the time it has stayed unrecorded, and
    by the laboratory values since.
    """
    histories = posterior.histories
    healthy = np.exp(-histories.before[:, disease] - histories.since[:, disease])
    there, caught = np.zeros(len(healthy)), np.zeros(len(healthy))
    evidence = [_Test.of(process, posterior, effect) for effect in process.lab_effects if effect.disease == disease]
    for onset, chance in _onsets(posterior, disease):
        log = sum((test.ratio(posterior, onset) for test in evidence), start=np.zeros(len(healthy)))
        ratio = np.exp(np.clip(log, -BOUND, BOUND))
        for unrecorded, rate in _ways(posterior, onset):
            weight = chance * unrecorded * ratio
            there += weight
            caught += weight * -np.expm1(-rate * years)
    return Hidden(healthy / (healthy + there), caught / (healthy + there))


def _onsets(posterior: Posterior, disease: int) -> Iterator[tuple[Floats, Floats]]:
    """(day, probability), (n,) each: before entry (the day of entry stands for it), then every year in care."""
    record, histories = posterior.record, posterior.histories
    entry = record.entry.astype(np.float64)
    yield entry, -np.expm1(-histories.before[:, disease])
    years = np.maximum(record.today - entry, 1) / YEAR
    spread = histories.since[:, disease] / years
    for year in range(int(np.ceil(years.max()))):
        start = entry + year * YEAR
        end = np.minimum(start + YEAR, record.today)
        yield (start + end) / 2, spread * np.maximum(end - start, 0) / YEAR


def _ways(posterior: Posterior, onset: Floats) -> Iterator[tuple[Floats, float]]:
    """(share that is in no record yet, yearly rate at which it enters it) of the ways in which a record can fail."""
    days = np.maximum(posterior.record.today - onset, 0)
    brought = onset <= posterior.record.entry
    slow = (1 - NEVER_SHARE - LATE_SHARE) * CARRIED_LATE * np.exp(-days / CARRIED_DAYS)
    yield np.where(brought, slow, 0), YEAR / CARRIED_DAYS
    yield LATE_SHARE * np.exp(-days / LATE_DAYS), YEAR / LATE_DAYS
    yield np.full_like(days, NEVER_SHARE), 0.0


@dataclass(frozen=True)
class _Test:
    """A laboratory test whose values a disease shifts, and what is known of it without the disease.

    Attributes:
        lab, shift: which, and by how much.
        noise: variance of a value around the person's level. level: (n,) variance of that level.
        mean: (n,) expected residual at the believed traits. count, total: (n,) values, and their sum less the mean's.
    """

    lab: int
    shift: float
    noise: float
    level: Floats
    mean: Floats
    count: Floats
    total: Floats

    @classmethod
    def of(cls, process: Process, posterior: Posterior, effect: LabEffect) -> _Test:
        """What is the same for every time at which the disease may have begun."""
        lab = process.labs[effect.lab]
        traits = trait_points() @ np.array(lab.loadings)
        mean = posterior.weights @ traits
        level = lab.person_sd**2 + posterior.weights @ traits**2 - mean**2
        count, total = values_of(posterior.record, posterior.residual, effect.lab)
        return cls(effect.lab, effect.shift, lab.noise_sd**2, level, mean, count, total - count * mean)

    def ratio(self, posterior: Posterior, onset: Floats) -> Floats:
        """(n,) log likelihood ratio of the values with the disease there from a day on, against without it.

        Values of one person share the person's level: with n values e and variances u of the level and v of the noise,
        -2 v log L = sum of e squared - u / (v + n u) (sum of e) squared.
        """
        count, total = values_of(posterior.record, posterior.residual, self.lab, onset)
        total = total - count * self.mean
        squares = self.shift**2 * count - 2 * self.shift * total
        sums = (self.total - self.shift * count) ** 2 - self.total**2
        return np.asarray((self.level / (self.noise + self.count * self.level) * sums - squares) / (2 * self.noise))


@dataclass(frozen=True)
class Beginning:
    """Of the latent disease. ``unseen``: (n,) probability that it has begun; ``seen``: that it is diagnosed in time."""

    unseen: Floats
    seen: Floats


def beginning(process: Process, posterior: Posterior, rate: Floats, years: float) -> Beginning:
    """One that began unseen in the last months, as what was recorded since lets expect, or one that begins soon.

    Args:
        rate: (n,) yearly hazard of its beginning at mean traits.
    """
    column, low, high = process.index(LATENT), *LATENT_MONTHS
    monthly = rate * (posterior.weights @ trait_factors(process)[:, column]) / 12
    lags, months = np.arange(low, high), round(years * 12)
    unseen, caught = np.zeros(len(rate)), np.zeros(len(rate))
    for ago in range(1, high):
        weight = monthly * _prodrome(process, posterior, ago)
        unseen += weight * (lags >= ago).mean()
        caught += weight * ((lags >= ago) & (lags < ago + months)).mean()
    soon = monthly * sum((lags < months - ahead).mean() for ahead in range(months))
    open_ = posterior.record.first[:, column] >= NEVER
    return Beginning(np.where(open_, unseen / (1 + unseen), 0), np.where(open_, caught / (1 + unseen) + soon, 0))


def _prodrome(process: Process, posterior: Posterior, ago: int) -> Floats:
    """(n,) likelihood ratio of what was and was not recorded since a beginning so many months ago."""
    record, effects = posterior.record, Effects(process, "prodrome")
    log = np.zeros(len(record))
    for target, excess, latency in zip(effects.target, effects.excess, effects.latency, strict=True):
        if target >= process.death:
            continue
        days = max((ago - 0.5) * MONTH - latency, 0)
        new = record.first[:, target] if process.chronic[target] else record.today - record.fresh[:, target]
        came = (new >= record.today - days) & (new < NEVER)
        log += np.log1p(excess) * came - excess * posterior.histories.now[:, target] * days / YEAR
    return np.asarray(np.exp(np.clip(log, -BOUND, BOUND)))
