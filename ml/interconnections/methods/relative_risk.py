"""Directed relative risk: how much oftener a first B is recorded after a first A than without A, per time at risk.

For an ordered pair A → B each patient who has no B yet is *unexposed* until his first A and *exposed* from then on,
until the first B or the end of follow-up. Time before the first clinical event and after the last one (or death) is
not observed and not counted. The follow-up is cut at the birthdays that end an age band; a stratum s is sex × band.

With a_s events in T1_s exposed days, b_s events in T0_s unexposed days, T_s = T1_s + T0_s and m_s = a_s + b_s:

- rate ratio   RR = Σ a_s T0_s / T_s  ÷  Σ b_s T1_s / T_s   (Mantel-Haenszel for person-time)
- variance     Var ln RR = Σ m_s T1_s T0_s / T_s²  ÷  [(Σ a_s T0_s / T_s) (Σ b_s T1_s / T_s)]
  and the 95 % interval is RR exp(± 1.96 √Var). Both: Greenland S, Robins JM. Estimation of a common effect parameter
  from sparse follow-up data. Biometrics 1985;41:55-68.
- p-value      under RR = 1, given m_s, the exposed events are a sum of Binomial(m_s, T1_s / T_s), with mean
  E = Σ m_s T1_s / T_s. From one event beyond E on, its tails lie below those of Binomial(Σ m_s, E / Σ m_s)
  (Hoeffding W. Ann Math Stat 1956;27:713-721). So twice the smaller tail of the latter, and 1 within one event of E,
  is a valid p-value at any count, small ones included.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import betainc, betaincc

from ml.interconnections.cohort import Cohort
from ml.interconnections.counting import Exposure, age_windows, count_together, exposure_of
from ml.interconnections.matrix import Z95, InterconnectionMatrix, Pairs, Provenance
from ml.interconnections.multiplicity import benjamini_hochberg

MEANING = (
    "incidence-rate ratio of a first target diagnosis after a first source diagnosis to without it, by sex and age"
)


@dataclass(frozen=True)
class Choices:
    """What is chosen about time.

    Attributes:
        gap_days: a target counts as after the source when it is more than so many days later; one recorded on the
            day of the source or within the gap counts for neither side.
        clearance_days: no time or event counts within so many days after a patient's first clinical event. A disease
            recorded then was probably there before; with it everything chronic would seem to begin at once.
        band_years: width of an age band. Exposed time comes later in life than unexposed time, so wide bands let
            growing old pass for an effect.
    """

    gap_days: int = 0
    clearance_days: int = 365
    band_years: int = 5


@dataclass(frozen=True)
class RateRatios:
    """Sums over strata for every ordered pair, (C, C) float64 each; the row is the source.

    Attributes:
        exposed, unexposed: events.
        expected: exposed events expected under RR = 1.
        numerator, denominator, information: the three sums of Greenland and Robins.
    """

    exposed: NDArray[np.float64]
    unexposed: NDArray[np.float64]
    expected: NDArray[np.float64]
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]
    information: NDArray[np.float64]

    @staticmethod
    def empty(codes: int) -> RateRatios:
        return RateRatios(*(np.zeros((codes, codes)) for _ in range(6)))

    def add(self, stratum: Exposure) -> None:
        """Add one stratum. One in which either side has no time at risk compares nothing and adds nothing."""
        _add_stratum(
            stratum.pairs, stratum.codes, stratum.days, self.exposed, self.unexposed, self.expected,
            self.numerator, self.denominator, self.information,
        )  # fmt: skip


@njit(nogil=True)
def _add_stratum(pairs, codes, days, exposed, unexposed, expected, numerator, denominator, information):  # type: ignore[no-untyped-def]
    for i in range(len(codes)):
        for j in range(len(codes)):
            a, b, days_after, days_without = exposure_of(pairs, codes, days, i, j)
            if i == j or days_after <= 0 or days_without <= 0 or a + b == 0:
                continue
            share = days_after / (days_after + days_without)
            exposed[i, j] += a
            unexposed[i, j] += b
            expected[i, j] += (a + b) * share
            numerator[i, j] += a * (1 - share)
            denominator[i, j] += b * share
            information[i, j] += (a + b) * share * (1 - share)


def rate_ratios(cohort: Cohort, choices: Choices) -> RateRatios:
    """Count every stratum over all shards and add them up; memory is that of one stratum."""
    total, stratum = RateRatios.empty(len(cohort.codes)), Exposure.empty(len(cohort.codes))
    windows = [age_windows(shard, choices.clearance_days, choices.band_years) for shard in cohort.shards]
    for number in sorted({int(s) for piece in windows for s in np.unique(piece.stratum)}):
        stratum.clear()
        for shard, piece in zip(cohort.shards, windows, strict=True):
            stratum.add(shard, piece.of(number), choices.gap_days)
        total.add(stratum)
    return total


def log_p_values(
    exposed: NDArray[np.float64], events: NDArray[np.float64], expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of the two-sided p-value of the module's docstring; -inf where it underflows.

    Args:
        exposed: (n,) exposed events.
        events: (n,) all events, positive.
        expected: (n,) exposed events expected under RR = 1.
    """
    share = expected / events
    others = events - exposed
    # The tails of a binomial are incomplete beta functions; the where() keeps their arguments positive.
    upper = np.where(exposed > 0, betainc(np.maximum(exposed, 1), others + 1, share), 1.0)  # P(X ≥ exposed)
    lower = np.where(others > 0, betaincc(exposed + 1, np.maximum(others, 1), share), 1.0)  # P(X ≤ exposed)
    with np.errstate(divide="ignore"):
        log_p = np.log(np.minimum(2 * np.minimum(upper, lower), 1.0))
    return np.where(np.abs(exposed - expected) < 1, 0.0, log_p)


def relative_risk(cohort: Cohort, min_cell: int, choices: Choices = Choices()) -> InterconnectionMatrix:
    """Rate ratio of every ordered pair with at least ``min_cell`` exposed and as many unexposed events.

    The false-discovery rate is controlled over all ordered pairs with any event in comparable strata.
    """
    sums, counts = rate_ratios(cohort, choices), count_together(cohort)
    events = sums.exposed + sums.unexposed
    tested = events > 0
    log_p = log_p_values(sums.exposed[tested], events[tested], sums.expected[tested])
    log_q = np.full(counts.shape, np.nan)
    log_q[tested] = benjamini_hochberg(log_p)
    log_p_of = np.full(counts.shape, np.nan)
    log_p_of[tested] = log_p
    source, target = np.nonzero(np.minimum(sums.exposed, sums.unexposed) >= min_cell)
    weight = sums.numerator[source, target] / sums.denominator[source, target]
    half = Z95 * np.sqrt(
        sums.information[source, target] / (sums.numerator[source, target] * sums.denominator[source, target])
    )
    pairs = Pairs(
        source.astype(np.int32),
        target.astype(np.int32),
        weight,
        weight * np.exp(-half),
        weight * np.exp(half),
        np.exp(log_p_of[source, target]),
        np.exp(log_q[source, target]),
        counts[source, target],
    )
    provenance = Provenance(
        method="relative_risk",
        as_of=cohort.as_of,
        snapshot_digest=cohort.digest,
        parameters={"min_cell": min_cell, "correction": "Benjamini-Hochberg", **asdict(choices)},
        patients=cohort.patients,
        codes_left_out=cohort.codes_left_out,
        pairs_tested=int(tested.sum()),
        pairs_left_out=int(np.count_nonzero(sums.exposed)) - len(source),
    )
    return InterconnectionMatrix(cohort.codes, np.diag(counts).copy(), pairs, True, MEANING, provenance)
