"""The gate: each condition holds on a good evaluation and refuses a bad one."""

from __future__ import annotations

import pytest

from ml.evaluation.results import LeakWarning, TaskResult
from ml.registry.gates import judge
from ml.registry.types import GateResult, refuses
from ml.settings import Settings
from tests.ml.invented_runs import estimate, evaluation, task_result


@pytest.fixture
def settings() -> Settings:
    return Settings(gate_events=50, gate_difference=-0.01)


def failed(verdict: GateResult) -> set[str]:
    return {check.name for check in verdict.checks if refuses(check)}


def test_a_good_model_passes_and_the_comparison_with_the_baselines_is_shown(settings: Settings) -> None:
    verdict = judge(evaluation(task_result()), settings)
    assert verdict.passed
    assert verdict.evaluable == ("heart_failure",)
    assert {"against_age_sex", "against_logistic_regression"} <= {check.name for check in verdict.checks}


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        (task_result(auroc=0.515), "better_than_chance"),
        (task_result(slope=0.4), "calibrated"),
        (task_result(slope=2.3), "calibrated"),
        (task_result(champion_difference=estimate(0.0)), "against_champion"),
    ],
)
def test_a_bad_number_refuses_the_model_and_names_its_check(settings: Settings, bad: TaskResult, check: str) -> None:
    verdict = judge(evaluation(bad), settings)
    assert not verdict.passed
    assert failed(verdict) == {check}
    assert verdict.reason.startswith("refused: heart_failure")


def test_a_model_a_little_below_the_champion_passes_within_the_margin(settings: Settings) -> None:
    near = task_result(champion_difference=estimate(0.005, half=0.01))  # lower bound -0.005
    assert judge(evaluation(near), settings).passed
    assert not judge(evaluation(near), settings.model_copy(update={"gate_difference": 0.0})).passed


def test_a_model_that_was_not_compared_with_the_champion_is_refused(settings: Settings) -> None:
    alone = evaluation(task_result())
    assert judge(alone, settings, rival=None).passed
    assert failed(judge(alone, settings, rival=3)) == {"champion_compared"}
    compared = evaluation(task_result(champion_difference=estimate(0.05)))
    assert judge(compared, settings, rival=3).passed


def test_too_few_events_refuse_for_want_of_evidence(settings: Settings) -> None:
    verdict = judge(evaluation(task_result(events=49)), settings)
    assert not verdict.passed
    assert failed(verdict) == {"evidence"}
    assert "for want of evidence" in verdict.reason
    assert judge(evaluation(task_result(events=50)), settings).passed


def test_a_rare_outcome_is_left_out_and_the_others_are_judged(settings: Settings) -> None:
    verdict = judge(evaluation(task_result(), task_result("stroke", auroc=0.4, events=12)), settings)
    assert verdict.passed
    assert verdict.not_evaluable == ("stroke",)


def test_a_count_below_the_threshold_is_not_told(settings: Settings) -> None:
    verdict = judge(evaluation(task_result(events=7)), settings)
    (check,) = (check for check in verdict.checks if check.name == "events")
    assert check.numbers["events"] is None
    assert "7" not in check.sentence
    assert "fewer than 11" in check.sentence


def test_a_sign_of_leakage_refuses_the_model(settings: Settings) -> None:
    leak = LeakWarning(kind="above_oracle", task="heart_failure", message="above the oracle")
    verdict = judge(evaluation(task_result(), warnings=(leak,)), settings)
    assert failed(verdict) == {"no_leak"}


def test_baselines_block_only_where_the_setting_says_so(settings: Settings) -> None:
    worse = evaluation(task_result(baseline_difference=-0.05))
    assert judge(worse, settings).passed
    strict = settings.model_copy(update={"gate_baselines": True})
    assert failed(judge(worse, strict)) == {"against_logistic_regression"}
