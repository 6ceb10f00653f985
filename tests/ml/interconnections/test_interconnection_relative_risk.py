from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ml.interconnections.cohort import UNKNOWN_BIRTH, Cohort, Histories
from ml.interconnections.counting import DAYS_PER_YEAR, age_windows
from ml.interconnections.methods.relative_risk import Choices, log_p_values, rate_ratios, relative_risk

CODES = ("ICD10CM//E11", "ICD10CM//I10", "ICD10CM//I50")
BIRTHDAY = round(40 * DAYS_PER_YEAR)  # days from birth to the end of the fourth band


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    """A few patients followed for a few days around their fortieth birthday."""
    count = draw(st.integers(1, 8))
    has = [draw(st.dictionaries(st.integers(0, 2), st.integers(0, 12))) for _ in range(count)]
    start = np.array([draw(st.integers(0, 4)) for _ in range(count)], np.int32)
    end = start + np.array([draw(st.integers(0, 9)) for _ in range(count)], np.int32)
    birth = [
        draw(st.sampled_from([UNKNOWN_BIRTH, -BIRTHDAY + 3, -BIRTHDAY + 6, -BIRTHDAY - 2_000])) for _ in range(count)
    ]
    shard = Histories(
        codes=CODES,
        offsets=np.cumsum([0, *map(len, has)]).astype(np.int64),
        code=np.array([code for one in has for code in sorted(one)], np.int32),
        day=np.array([one[code] for one in has for code in sorted(one)], np.int32),
        start=start,
        end=end.astype(np.int32),
        birth=np.array(birth, np.int32),
        sex=np.array([draw(st.integers(0, 2)) for _ in range(count)], np.int8),
    )
    return Cohort((shard,), CODES, 0, None, "")  # type: ignore[arg-type]


def day_by_day(cohort: Cohort, choices: Choices, a: int, b: int) -> dict[object, list[int]]:
    """Of each stratum: events after A, without A; days after A, without A. One patient and one day at a time."""
    table: dict[object, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    (shard,) = cohort.shards
    for p in range(shard.patients):
        own = slice(shard.offsets[p], shard.offsets[p + 1])
        first = dict(zip(shard.code[own].tolist(), shard.day[own].tolist(), strict=True))
        for day in range(shard.start[p] + choices.clearance_days + 1, shard.end[p] + 1):
            age = None if shard.birth[p] == UNKNOWN_BIRTH else int(day - shard.birth[p] > BIRTHDAY)
            if day > first.get(b, 999):
                continue
            exposed, unexposed = day > first.get(a, 999) + choices.gap_days, day <= first.get(a, 999)
            event = day == first.get(b)
            row = table[int(shard.sex[p]), age]
            row[0] += event and exposed
            row[1] += event and unexposed and day != first.get(a)
            row[2] += exposed
            row[3] += unexposed
    return table


@settings(deadline=None, max_examples=150)
@given(cohorts(), st.integers(0, 2), st.integers(0, 2))
def test_events_and_time_at_risk_are_those_of_a_day_by_day_count(cohort: Cohort, gap: int, clearance: int) -> None:
    choices = Choices(gap_days=gap, clearance_days=clearance, band_years=10)
    sums = rate_ratios(cohort, choices)
    for a in range(3):
        for b in range(3):
            rows = [] if a == b else day_by_day(cohort, choices, a, b).values()
            rows = [(x, y, t1, t0) for x, y, t1, t0 in rows if t1 > 0 and t0 > 0]
            assert sums.exposed[a, b] == sum(x for x, _, _, _ in rows)
            assert sums.unexposed[a, b] == sum(y for _, y, _, _ in rows)
            assert sums.numerator[a, b] == pytest.approx(sum(x * t0 / (t1 + t0) for x, _, t1, t0 in rows))
            assert sums.denominator[a, b] == pytest.approx(sum(y * t1 / (t1 + t0) for _, y, t1, t0 in rows))
            assert sums.expected[a, b] == pytest.approx(sum((x + y) * t1 / (t1 + t0) for x, y, t1, t0 in rows))
            assert sums.information[a, b] == pytest.approx(
                sum((x + y) * t1 * t0 / (t1 + t0) ** 2 for x, y, t1, t0 in rows)
            )


@settings(deadline=None, max_examples=25)
@given(cohorts(), cohorts())
def test_shards_add_up(some: Cohort, others: Cohort) -> None:
    one, two = some.shards[0], others.shards[0]
    rest = ("code", "day", "start", "end", "birth", "sex")
    joined = Histories(
        CODES,
        np.concatenate([one.offsets, two.offsets[1:] + one.offsets[-1]]),
        *(np.concatenate([getattr(one, name), getattr(two, name)]) for name in rest),
    )
    choices = Choices(clearance_days=0)
    sharded = rate_ratios(replace(some, shards=(one, two)), choices)
    whole = rate_ratios(replace(some, shards=(joined,)), choices)
    for name in ("exposed", "unexposed", "expected", "numerator", "denominator", "information"):
        assert np.array_equal(getattr(sharded, name), getattr(whole, name))


def test_follow_up_is_cut_at_birthdays_without_gap_or_overlap() -> None:
    shard = Histories(
        CODES, np.zeros(3, np.int64), np.array([], np.int32), np.array([], np.int32),
        start=np.array([0, 0], np.int32), end=np.array([9_000, 50], np.int32),
        birth=np.array([-BIRTHDAY + 100, UNKNOWN_BIRTH], np.int32), sex=np.array([1, 2], np.int8),
    )  # fmt: skip
    windows = age_windows(shard, clearance=30, band_years=10)
    first = [(lo, hi) for p, lo, hi in zip(windows.patient, windows.low, windows.high, strict=True) if p == 0]
    fifty, sixty = (100 - BIRTHDAY + round(age * DAYS_PER_YEAR) for age in (50, 60))
    assert first == [(30, 100), (100, fifty), (fifty, sixty), (sixty, 9_000)]
    assert len(set(windows.stratum.tolist())) == 5


def simulate(rate_b_after_a: float, ageing: float, seed: int, patients: int = 6_000) -> Cohort:
    """Ten years of follow-up in which A and B come at random; B's rate is multiplied after A, both grow with age."""
    draw = np.random.default_rng(seed)
    start, length = 20_000, 3_650
    age = draw.uniform(20, 80, patients)
    years = np.arange(0, 10, 0.1)
    rate = 0.01 * np.exp(ageing * (age[:, None] + years[None] - 50))
    a = first_of(draw, rate)
    b = first_of(draw, rate * np.where(years[None] > a[:, None], rate_b_after_a, 1.0))
    day = np.stack([start + 1 + a * 365.0, start + 1 + b * 365.0], axis=1)
    has = np.isfinite(day)
    return Cohort(
        (
            Histories(
                CODES[:2],
                np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int64),
                np.nonzero(has)[1].astype(np.int32),
                day[has].astype(np.int32),
                np.full(patients, start, np.int32),
                np.full(patients, start + length, np.int32),
                (start - age * DAYS_PER_YEAR).astype(np.int32),
                np.ones(patients, np.int8),
            ),
        ),
        CODES[:2], 0, None, "",  # type: ignore[arg-type]
    )  # fmt: skip


def first_of(draw: np.random.Generator, rate: np.ndarray) -> np.ndarray:
    """(P,) years until the first event of a yearly (P, 100) rate in steps of 0.1; inf where none comes."""
    hit = draw.random(rate.shape) < 1 - np.exp(-rate * 0.1)
    when = hit.argmax(axis=1) * 0.1 + draw.random(len(rate)) * 0.1
    return np.where(hit.any(axis=1), when, np.inf)


def estimate(cohort: Cohort, choices: Choices = Choices(clearance_days=0)) -> dict[tuple[int, int], tuple[float, ...]]:
    pairs = relative_risk(cohort, 11, choices).pairs
    columns = zip(pairs.source, pairs.target, pairs.ci_low, pairs.weight, pairs.ci_high, pairs.p_value, strict=True)
    return {(int(a), int(b)): tuple(map(float, rest)) for a, b, *rest in columns}


def test_a_planted_effect_is_estimated_within_its_interval_and_only_in_its_direction() -> None:
    found = estimate(simulate(rate_b_after_a=3.0, ageing=0.0, seed=1))
    low, _, high, p = found[0, 1]
    assert low < 3.0 < high
    assert p < 1e-6
    low, _, high, p = found[1, 0]
    assert low < 1.0 < high
    assert p > 0.05


def test_growing_old_does_not_pass_for_a_cause() -> None:
    cohort = simulate(rate_b_after_a=1.0, ageing=0.08, seed=2)
    low, _, high, _ = estimate(cohort, Choices(clearance_days=0, band_years=5))[0, 1]
    assert low < 1.0 < high
    unadjusted = estimate(cohort, Choices(clearance_days=0, band_years=60))[0, 1]
    assert unadjusted[0] > 1.2  # what the strata are there for


def test_what_is_found_at_the_first_visit_is_not_counted_as_new(cohort_of: Callable[..., Cohort]) -> None:
    old = [
        (n, day, code)
        for n in range(30)
        for day, code in ((0, "ICD10CM//E11"), (5, "ICD10CM//I50"), (3_000, "VISIT//outpatient"))
    ]
    others = [
        (n, day, code) for n in range(30, 60) for day, code in ((0, "VISIT//outpatient"), (2_000, "ICD10CM//I50"))
    ]
    cohort = cohort_of(old + others)
    at_once = rate_ratios(cohort, Choices(clearance_days=0))
    cleared = rate_ratios(cohort, Choices(clearance_days=365))
    source, target = cohort.codes.index("ICD10CM//E11"), cohort.codes.index("ICD10CM//I50")
    assert at_once.exposed[source, target] == 30
    assert cleared.exposed[source, target] == 0


def test_with_one_stratum_the_p_value_is_the_binomial_tests() -> None:
    exposed, events, expected = (
        np.array([0.0, 4.0, 30.0, 40.0]),
        np.array([20.0, 20.0, 40.0, 40.0]),
        np.array([8.0, 8.0, 16.0, 38.0]),
    )
    tails = [
        min(stats.binomtest(int(x), int(n), e / n, side).pvalue for side in ("less", "greater"))
        for x, n, e in zip(exposed, events, expected, strict=True)
    ]
    assert np.exp(log_p_values(exposed, events, expected)) == pytest.approx(
        np.minimum(2 * np.array(tails), 1), rel=1e-9
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0.02, 0.98)), min_size=1, max_size=5))
def test_with_several_strata_the_p_value_never_claims_more_than_the_exact_one(strata: list[tuple[int, float]]) -> None:
    exact = np.ones(1)
    for events, share in strata:
        exact = np.convolve(exact, stats.binom.pmf(np.arange(events + 1), events, share))
    total, expected = sum(m for m, _ in strata), sum(m * share for m, share in strata)
    exposed = np.arange(total + 1, dtype=float)
    ours = np.exp(log_p_values(exposed, np.full(total + 1, float(total)), np.full(total + 1, expected)))
    upper, lower = exact[::-1].cumsum()[::-1], exact.cumsum()
    assert np.all(ours >= np.minimum(2 * np.minimum(upper, lower), 1) * (1 - 1e-9))


def test_among_diseases_that_know_nothing_of_each_other_no_direction_is_significant(chance: Cohort) -> None:
    matrix = relative_risk(chance, 11)
    assert len(matrix.pairs) > 200
    assert (matrix.pairs.p_adjusted < 0.05).sum() <= 1
    common = (matrix.pairs.source < 6) & (matrix.pairs.target < 6)  # none of these left out, so no choice of the large
    assert common.sum() == 30
    assert np.exp(np.log(matrix.pairs.weight[common]).mean()) == pytest.approx(1.0, abs=0.08)


def test_both_directions_stand_and_only_with_enough_events_on_either_side(chance: Cohort) -> None:
    matrix = relative_risk(chance, 11)
    sums = rate_ratios(chance, Choices())
    both = np.minimum(sums.exposed, sums.unexposed)[matrix.pairs.source, matrix.pairs.target]
    assert both.min() >= 11
    assert matrix.pairs.n_both.min() >= 11
    assert {(1, 0), (0, 1)} <= set(zip(matrix.pairs.source.tolist(), matrix.pairs.target.tolist(), strict=True))
    assert matrix.provenance.pairs_left_out == (sums.exposed > 0).sum() - len(matrix.pairs) > 0
