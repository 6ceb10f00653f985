"""Volumes and codes of a night beside its trailing weeks: what is unusual, and what must not alarm."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from math import log
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.extraction.log import Partition, write_pending
from ml.quality.aggregates import drift_measures
from ml.quality.drift import measure_drift, stability
from ml.quality.validation import _say
from ml.quality.verdict import Drift, KindDrift, Verdict, Volume, read_verdict, write_verdict
from ml.quality.volume import departure, volumes
from ml.settings import get_settings
from tests.ml.quality.invented_weeks import KIND, LAST, OTHER, USUAL, Codes, weeks


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIGIL_DATA", str(tmp_path))
    get_settings.cache_clear()


def volume(counts: list[int], now: int) -> Volume:
    """The volume of a night with ``now`` rows after nights with ``counts``."""
    days = [LAST - timedelta(days=back) for back in range(len(counts), -1, -1)]
    nights = [
        Partition(day, day, day, {}, "kept", 1, rows={KIND: n}) for day, n in zip(days, [*counts, now], strict=True)
    ]
    return volumes(nights[-1], nights[:-1])[0]


def drift_of(recent: Codes, usual: Codes = USUAL) -> KindDrift:
    nights = weeks(recent, usual)
    return next(kind for kind in measure_drift(nights[-1], nights[:-1]).kinds if kind.kind == KIND)


def failed(kind: KindDrift) -> set[str]:
    return {measure.name for measure in drift_measures(kind) if measure.value > measure.limit}


def frame(now: list[int], before: list[int]) -> pl.DataFrame:
    codes = [f"ICD10CM//{chr(65 + n // 90 % 26)}{n % 90 + 10}.{n // 2340}" for n in range(len(now))]
    return pl.DataFrame({"code": codes, "now": now, "before": before})


def weekly(weekday: int, weekend: int) -> list[int]:
    """28 counts that end the day before ``LAST``."""
    days = [LAST - timedelta(days=back) for back in range(28, 0, -1)]
    return [weekend if day.weekday() >= 5 else weekday for day in days]


def test_a_weekday_is_compared_with_its_own_kind() -> None:
    assert LAST.weekday() == 3
    assert departure(volume(weekly(1000, 100), 1000)) == 0
    assert departure(volume(weekly(1000, 100), 100)) > 1
    assert departure(volume(weekly(100, 1000), 1000)) > 1


def test_the_tolerance_is_learnt_from_the_spread_of_the_nights() -> None:
    rng = np.random.default_rng(1)
    wild = [int(n) for n in rng.normal(1000, 200, 28)]
    assert departure(volume(wild, 1500)) < 1
    assert departure(volume([1000] * 28, 1500)) > 1


def test_one_odd_night_does_not_widen_what_is_tolerated() -> None:
    odd = [1000] * 27 + [90_000]
    assert volume(odd, 1000).tolerance == volume([1000] * 28, 1000).tolerance


@pytest.mark.parametrize("mean", [0.5, 3, 20])
def test_a_small_hospital_is_not_warned_of_chance(mean: float) -> None:
    rng = np.random.default_rng(2)
    found = [volume(rng.poisson(mean, 28).tolist(), int(rng.poisson(mean))) for _ in range(300)]
    assert np.mean([departure(v) > 1 or v.absent for v in found]) < 0.04


def test_a_kind_that_always_has_rows_and_now_has_none_is_absent() -> None:
    assert volume([3] * 28, 0).absent
    assert not volume([3] * 28, 1).absent
    assert not volume([3, 0] * 14, 0).absent  # often none
    assert volume(weekly(9, 0), 0).absent  # a Thursday


def test_with_too_few_days_no_volume_is_expected() -> None:
    young = volume([100] * 13, 9000)
    assert (young.expected, departure(young), young.absent) == (None, 0.0, False)
    assert volume([100] * 14, 9000).expected == 100


def test_a_night_of_several_days_is_held_against_several_days() -> None:
    nights = weeks()
    late = replace(nights[-1], recorded_from=LAST - timedelta(days=2), rows={KIND: 600, OTHER: 300})
    assert all(departure(v) < 1 for v in volumes(late, nights[:-3]))
    assert departure(volumes(replace(late, rows={KIND: 200}), nights[:-3])[0]) > 1


def test_the_stability_index_is_that_of_the_literature() -> None:
    psi, limit = stability(frame([80_000, 20_000], [50_000, 50_000]))
    assert psi == pytest.approx((0.8 - 0.5) * log(0.8 / 0.5) + (0.2 - 0.5) * log(0.2 / 0.5), abs=1e-3)
    assert limit == 0.2
    assert stability(frame([500, 300], [5000, 3000]))[0] < 0.01


@pytest.mark.parametrize("rows", [500, 5_000, 50_000])
def test_many_rare_codes_are_no_drift_by_chance(rows: int) -> None:
    rng = np.random.default_rng(3)
    shares = 1 / np.arange(1, 3001)
    shares /= shares.sum()
    draws = [(rng.multinomial(rows, shares).tolist(), rng.multinomial(4 * rows, shares).tolist()) for _ in range(30)]
    beyond = [psi > limit for psi, limit in (stability(frame(now, before)) for now, before in draws)]
    assert sum(beyond) == 0
    shifted = rng.multinomial(rows, shares[::-1]).tolist()
    psi, limit = stability(frame(shifted, draws[0][1]))
    assert psi > limit


def test_weeks_alike_do_not_drift() -> None:
    assert failed(drift_of(USUAL)) == set()


def test_new_and_vanished_codes_are_named_if_not_rare() -> None:
    recent = {**dict.fromkeys(list(USUAL)[1:], 20), "ICD10CM//J10": 20, "ICD10CM//Q99": 1}
    kind = drift_of(recent)
    assert failed(kind) >= {"codes_new", "codes_vanished"}
    assert [code.code for code in kind.new_named] == ["ICD10CM//J10"]
    assert [(code.code, code.rows) for code in kind.vanished_named] == [("ICD10CM//I10", 20 * 28)]
    assert (kind.new_codes, kind.new_rows, kind.vanished_codes) == (2, 147, 1)


def test_a_code_rare_before_does_not_vanish() -> None:
    assert drift_of(USUAL, {**USUAL, "ICD10CM//Q99": 1}).vanished_codes == 0


def test_small_nights_are_not_judged() -> None:
    few = dict.fromkeys(USUAL, 1)
    kind = drift_of({"SOURCE//y": 10}, few)
    assert (kind.judged, kind.psi, failed(kind)) == (False, None, set())


def test_a_base_load_and_the_first_nights_have_nothing_to_compare_with(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    base = Partition(LAST, None, LAST, {}, "kept", 1, rows={KIND: 5})
    assert measure_drift(base, []) == Drift()
    nights = weeks(nights=10)
    young = measure_drift(
        nights[-1], [replace(base, as_of=date(2024, 1, 1), recorded_to=date(2024, 1, 1)), *nights[:-1]]
    )
    assert (young.kinds, young.recent_days, young.reference_days) == ((), 7, 3)
    _say(Verdict(LAST, True, False, 5, 0, (), young))
    assert "code drift is not judged yet: 3 of 7 days" in caplog.text
    assert "fewer than 14 trailing days" in caplog.text


def test_only_the_trailing_weeks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    real = pl.read_parquet
    monkeypatch.setattr(pl, "read_parquet", lambda source, **more: read.update([source]) or real(source, **more))
    nights = weeks(nights=60)
    measure_drift(nights[-1], nights[:-1])
    assert len(read) == 35
    assert all(path.endswith("codes.parquet") for path in read)


def test_a_verdict_keeps_its_drift_and_one_without_is_still_read() -> None:
    nights = weeks({**USUAL, "ICD10CM//J10": 20})
    write_pending(nights[-1])
    verdict = Verdict(LAST, True, False, 5, 0, (), measure_drift(nights[-1], nights[:-1]))
    write_verdict(nights[-1], verdict)
    assert read_verdict(nights[-1]) == verdict
    path = nights[-1].path / "verdict.json"
    older = json.loads(path.read_text())
    del older["drift"]
    path.write_text(json.dumps(older))
    assert read_verdict(nights[-1]).drift is None
