"""The report of a night, with every part there and with each part absent."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from ml.common.code_names import chapter
from ml.evaluation.figures import dot_whisker, model_row
from ml.evaluation.results import Estimate, MetricSet, TaskResult
from ml.evaluation.words import comparison
from ml.extraction.log import committed_partition
from ml.publication.report import write_report
from ml.publication.report_inputs import fold_small
from ml.publication.report_network import Edge, network
from ml.quality.verdict import CodeCount, Drift, KindDrift, Verdict, Volume, write_verdict
from ml.settings import Settings, get_settings
from tests.ml.pages import check_drawn, check_whole, words_of
from tests.ml.publication.invented_night import (
    AS_OF,
    DIGEST,
    decide,
    make_evaluation,
    make_log,
    publish_pairs,
    publish_risks,
)


@pytest.fixture
def night(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("VIGIL_BOOTSTRAP", "50")
    get_settings.cache_clear()
    return get_settings()


def full_night() -> None:
    run = make_evaluation(make_log())
    decide(run, by_policy=True)
    publish_risks()
    publish_pairs()


def test_a_full_night_shows_every_part_and_needs_nothing_from_outside(night: Settings) -> None:
    full_night()
    path = write_report(AS_OF)
    assert path == night.data_dir / "reports" / f"{AS_OF}.html"
    html, text = path.read_text(), words_of(path)
    for expected in (
        "521,687 events extracted",
        "15 expectations asked of 521,687 rows; 1 warn, 0 block",
        DIGEST,
        "by policy; no person has reviewed it",
        "Med-BERT is above logistic regression for",
        "Oracle",
        "Relative risk",
        "Chronic kidney disease",
        "version 3",
        "The patients are invented",
    ):
        assert expected in text
    assert len(re.findall(r"<svg", html)) == 1 + 4 + 4 + 2
    assert path.stat().st_size < 400_000
    check_whole(html)


def test_a_report_holds_no_pseudonym_and_no_small_count(night: Settings) -> None:
    full_night()
    text = words_of(write_report(AS_OF))
    assert "secret-" not in text
    assert "deceased" not in text  # one patient: joined with the others who are out of scope
    assert "other reasons 20" in text


def test_the_same_night_gives_the_same_bytes(night: Settings) -> None:
    full_night()
    first = write_report(AS_OF).read_bytes()
    assert write_report(AS_OF).read_bytes() == first


def test_a_decision_by_a_person_names_the_person_and_says_nothing_of_policy(night: Settings) -> None:
    decide(make_evaluation(make_log()), by_policy=False)
    text = words_of(write_report(AS_OF))
    assert "Champion. Version 3 was let through by dr.chen" in text
    assert "by policy" not in text


def test_a_waiting_challenger_is_not_called_champion(night: Settings) -> None:
    make_evaluation(make_log())
    text = words_of(write_report(AS_OF))
    assert "Challenger. The gate let this model through to review; nobody has decided on it yet." in text
    assert "Champion" not in text


def test_a_rejected_model_says_by_whom(night: Settings) -> None:
    decide(make_evaluation(make_log()), by_policy=False, decision="rejected")
    assert "Version 3 was rejected by dr.chen" in words_of(write_report(AS_OF))


def test_the_report_says_so_when_logistic_regression_wins(night: Settings) -> None:
    make_evaluation(make_log(), regression_wins=True)
    text = words_of(write_report(AS_OF))
    assert "Logistic regression wins for death, heart failure, stroke and type 2 diabetes." in text
    assert "Logistic regression wins: Med-BERT is below it by AUROC -0." in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.001, 0.03, "Med-BERT is above logistic regression"),
        (-0.03, -0.001, "Logistic regression wins"),
        (-0.01, 0.02, "cannot be told apart"),
    ],
)
def test_who_is_ahead_follows_from_the_paired_interval_alone(low: float, high: float, words: str) -> None:
    difference = MetricSet(auroc=Estimate(value=(low + high) / 2, low=low, high=high))
    differences = {"medbert-minus-logistic_regression": difference}
    task = TaskResult(task="stroke", horizon_days=365, all_days={}, temporal={}, differences=differences)
    assert words in (comparison(task, "logistic_regression") or "")


def test_a_night_without_a_model_or_anything_published_says_why(night: Settings) -> None:
    make_log()
    text = words_of(write_report(AS_OF))
    assert "No model has been evaluated and let through yet" in text
    assert "no model is champion yet, so nobody was scored" in text
    assert "disclosure control left nothing" in text
    assert "No table has a release of this night" in text


def test_a_day_without_a_snapshot_says_so(night: Settings) -> None:
    text = words_of(write_report(date(2001, 1, 1)))
    assert "There is no snapshot of 2001-01-01" in text
    assert "No partition of the event log covers this day." in text


def test_a_night_that_quality_blocked_shows_what_blocked_it(night: Settings) -> None:
    make_log(passed=False)
    text = words_of(write_report(AS_OF))
    assert "not before birth condition occurrence block 40 of 182,344" in text


def judge_drift(drift: Drift | None) -> None:
    """Give the night's partition a verdict with some drift."""
    partition = committed_partition(AS_OF)
    assert partition is not None
    write_verdict(partition, Verdict(AS_OF, True, False, 521_687, 0, (), drift))


def drifted() -> Drift:
    days = {str(date(2019, 6, day)): 5_000.0 + day for day in range(2, 30)}
    labs, rare = Volume("measurement", 1_200, 5_010.0, 1_252.0, False, days), Volume("death", 3, 5.0, 9.0, False, {})
    new, gone = (CodeCount("LOINC//4548-4", 900),), (CodeCount("SOURCE//<hb>", 640), CodeCount("LOINC//9-9", 7))
    codes = KindDrift(
        kind="measurement",
        rows=30_000,
        rows_before=140_000,
        judged=True,
        psi=0.314,
        psi_limit=0.2,
        new_codes=4,
        new_rows=913,
        new_limit=0.05,
        new_named=new,
        regular_codes=80,
        vanished_codes=1,
        vanished_named=gone,
        unmet=600,
        unmet_share=0.02,
        unmet_share_before=0.011,
        unmapped=0,
        unmapped_share=0.0,
        unmapped_share_before=0.0,
    )
    few = replace(codes, kind="death", judged=False, psi=None, psi_limit=None, rows=3, new_named=(), vanished_named=())
    return Drift("2019-06-24", "2019-06-30", 7, 28, (labs, rare), (codes, few))


def test_drift_shows_volumes_and_codes_beside_the_trailing_weeks(night: Settings) -> None:
    make_log()
    judge_drift(drifted())
    path = write_report(AS_OF)
    html, text = path.read_text(), words_of(path)
    assert "measurement 1,200 3,758 to 6,262 unusual" in text
    assert "Codes of 2019-06-24 to 2019-06-30 against the 28 days before" in text
    assert "measurement 0.31 drift 98.0% 98.9% 4 LOINC//4548-4 900 1 SOURCE//" in text
    assert "Too few rows to judge: death" in text
    assert "death <11 0 to 14" in text
    assert "LOINC//9-9" not in text  # seven rows
    assert "<hb>" not in html
    assert 'aria-label="Rows of measurement per night over 28 trailing days and this night"' in html
    check_whole(html)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (None, "The verdict of this night says nothing of drift."),
        (Drift(), "A base load has no nights before it"),
        (
            replace(drifted(), kinds=(), reference_days=3),
            "Codes are not compared yet: 3 days lie before the trailing 7",
        ),
    ],
)
def test_where_nothing_is_compared_the_report_says_why(night: Settings, drift: Drift | None, words: str) -> None:
    make_log()
    judge_drift(drift)
    text = words_of(write_report(AS_OF))
    assert words in text
    assert "Stability index" not in text


def test_a_database_out_of_reach_leaves_the_rest_of_the_report(
    night: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_evaluation(make_log())
    monkeypatch.setenv("VIGIL_READ_DSN", "postgresql://vigil_read:hidden@127.0.0.1:1/vigil")
    get_settings.cache_clear()
    text = words_of(write_report(AS_OF))
    assert "What is published could not be read: cannot connect to Postgres at 127.0.0.1:1/vigil" in text
    assert "hidden" not in text
    assert "521,687 events extracted" in text


def test_outcomes_too_rare_to_judge_give_reasons_instead_of_pictures(night: Settings) -> None:
    make_evaluation(make_log(), rare=True)
    text = words_of(write_report(AS_OF))
    assert "no held-out patient has the outcome" in text
    assert "No outcome has enough events to compare the models." in text
    assert "No outcome has the eleven events" in text


def test_an_older_night_says_that_another_release_is_current(night: Settings) -> None:
    make_log()
    publish_pairs(as_of=date(2019, 7, 4))
    text = words_of(write_report(AS_OF))
    assert "Nothing of this night is published; the current release is the one of 2019-07-04." in text


def test_small_counts_are_joined_until_none_can_be_had_by_subtraction() -> None:
    assert fold_small([("a", 50), ("b", 30), ("c", 3)], 11) == (("a", 50), ("other reasons", 33))
    assert fold_small([("a", 50), ("b", 8), ("c", 7)], 11) == (("a", 50), ("other reasons", 15))
    assert fold_small([("a", 50), ("b", 30)], 11) == (("a", 50), ("b", 30))
    assert fold_small([("a", 5)], 11) == ()
    assert fold_small([("a", 0)], 11) == ()


def test_chapters_follow_the_classification() -> None:
    codes = {"ICD10CM//D49": "Neoplasms", "ICD10CM//D50": "Blood, immunity", "ICD10CM//H60": "Ear"}
    codes |= {"ICD9CM//428": "Circulation", "ICD9CM//E88": "External causes", "ICD9CM//001": "Infections"}
    codes |= {"ATC//A10": "Other", "ICD10CM//": "Other"}
    assert {code: chapter(code) for code in codes} == codes


def test_names_in_pictures_are_escaped() -> None:
    edge = Edge("ICD10CM//E11", "ICD10CM//<b>", 2.0, 1.5, 2.5, 20, True)
    assert "<b>" not in network([edge], {"ICD10CM//E11": "<script>"}, "a <label>")
    assert "<script>" not in network([edge], {"ICD10CM//E11": "<script>"}, "x")
    estimate = Estimate(value=0.7, low=0.6, high=0.8)
    assert "<i>" not in dot_whisker([("<i>", [model_row("medbert", estimate)])], "x")
    assert "→" not in network([replace(edge, directed=False)], {}, "x")


def test_a_browser_draws_the_report(night: Settings, tmp_path: Path) -> None:
    full_night()
    check_drawn(write_report(AS_OF), tmp_path)
