"""The report of a model: every part there, each part absent, nothing small, nobody in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.cohorts import TrainingRun, read_flow, read_labels
from ml.common.errors import NotFoundError
from ml.common.files import read_json, write_json
from ml.evaluation.attribution import ATTRIBUTIONS, Attributions, attribute, read_attributions
from ml.evaluation.cohort import COHORT, SPLITS, fold_reasons, read_cohort
from ml.evaluation.results import Evaluation, MetricSet, Subgroup
from ml.registry import write_report
from ml.settings import get_settings
from tests.ml.evaluation.invented_hospital import RISK_CODE
from tests.ml.invented_runs import estimate
from tests.ml.pages import check_drawn, check_whole, words_of
from tests.ml.registry.conftest import PLANTED, RARE


def test_a_full_report_has_every_section_and_needs_nothing_from_outside(reported: TrainingRun) -> None:
    path = write_report(reported)
    assert path == reported.path / "report.html"
    html, text = path.read_text(), words_of(path)
    for section in ("summary", "who", "comparison", "outcomes", "drift", "gate", "card"):
        assert f'<section id="{section}">' in html
    for words in (
        "The gate lets this model through to review, on heart failure. A person decides.",
        "On average Med-BERT is above age and sex",
        "Death no held-out patient has the outcome",  # not judged, with its reason
        "Patients by split",
        "If the highest risks are alerted",
        "No group has enough events to be judged apart.",
        "Held-out rows with and without the outcome",
        "Intended use",
        "no clinical use has been validated",
        "12,345 tokens, 1.5 epochs",
        reported.snapshot.digest,
    ):
        assert words in text
    for label in ("ROC curves", "Precision and recall", "Calibration", "Net benefit"):
        assert html.count(f'aria-label="{label}, ') == 1  # one outcome is evaluable
    for model in ("Champion", "LightGBM", "Logistic regression", "Age and sex", "Oracle"):
        assert model in text
    assert path.stat().st_size < 400_000
    check_whole(html)


def test_groups_are_drawn_and_the_two_that_are_furthest_apart_named(reported: TrainingRun) -> None:
    evaluation = Evaluation.load(reported.evaluation)
    task = evaluation.tasks["heart_failure"]
    groups = [
        Subgroup(
            by="sex", value=value, n=None, events=None, draws=100, models={"medbert": MetricSet(auroc=estimate(a))}
        )
        for value, a in (("F", 0.8), ("M", 0.79))
    ]
    few = Subgroup(by="site", value="B", n=None, events=None, draws=100, reason="fewer than 11 held-out rows")
    changed = task.model_copy(update={"subgroups": (*groups, few)})
    evaluation.model_copy(update={"tasks": {**evaluation.tasks, "heart_failure": changed}}).save(reported.evaluation)
    path = write_report(reported)
    text = words_of(path)
    assert 'aria-label="AUROC by group, Heart failure"' in path.read_text()
    assert "Furthest apart by sex: M 0.790 and F 0.800; their intervals overlap." in text
    assert "site: B not told not told fewer than 11 held-out rows" in text


def test_a_model_that_the_gate_refuses_says_why(reported: TrainingRun) -> None:
    verdict = read_json(reported.path / "gate.json")
    reason = "refused: heart_failure: calibration slope 0.2, must lie between 0.5 and 2.0"
    write_json(reported.path / "gate.json", {**verdict, "passed": False, "reason": reason})
    text = words_of(write_report(reported))
    assert "The gate refuses this model. Heart_failure: calibration slope 0.2, must lie between" in text
    assert "lets this model through" not in text


def test_a_code_that_the_model_leans_on_is_found_at_its_weight_and_named(reported: TrainingRun) -> None:
    found = attribute(reported).outcomes["heart_failure"]
    strongest = max(found, key=lambda one: one.value)
    assert strongest.token == RISK_CODE
    assert strongest.value == pytest.approx(PLANTED, abs=0.1)  # the encoder, random, adds a little
    assert strongest.low <= strongest.value <= strongest.high
    labelled = read_labels(reported, "heart_failure").filter((pl.col("split") == "held_out") & (pl.col("index") == 1))
    assert 11 <= strongest.asked <= strongest.patients < labelled.height
    assert "Essential (primary) hypertension" in words_of(write_report(reported))


def test_the_same_run_gives_the_same_bytes_also_where_everything_is_asked_again(reported: TrainingRun) -> None:
    first = write_report(reported).read_bytes()
    (reported.path / ATTRIBUTIONS).unlink()
    assert write_report(reported).read_bytes() == first


def test_what_was_asked_of_other_weights_is_asked_again(reported: TrainingRun) -> None:
    made = attribute(reported)
    stale = made.model_copy(update={"weights": "of another model", "outcomes": {}})
    (reported.path / ATTRIBUTIONS).write_text(stale.model_dump_json())
    assert attribute(reported) == made


def test_no_patient_and_no_code_of_a_few_is_in_the_report_or_its_files(reported: TrainingRun) -> None:
    write_report(reported)
    texts = [(reported.path / name).read_text() for name in ("report.html", COHORT, ATTRIBUTIONS)]
    subjects = read_labels(reported, "heart_failure")["subject_id"].unique().to_list()
    assert len(subjects) > 500
    numbers = set(re.findall(r"\d{9,}", " ".join(texts)))
    assert not numbers & {str(subject) for subject in subjects}
    assert RARE in (reported.finetuned / "vocabulary.json").read_text()  # the model knows it
    assert not any(RARE.removeprefix("ICD10CM//") in text for text in texts)


def test_the_way_to_the_judged_rows_adds_up(reported: TrainingRun) -> None:
    cohort, flow = read_cohort(reported.path), read_flow(reported)
    assert cohort is not None
    found = cohort.flows["heart_failure"]
    asked = flow.filter((pl.col("task") == "heart_failure") & (pl.col("split") == "held_out"))
    known, labelled = found.known["held_out"], found.labelled["held_out"]
    assert known == asked["rows"].sum() == 3 * sum(split == "held_out" for split in _splits(flow))
    assert labelled == read_labels(reported, "heart_failure").filter(pl.col("split") == "held_out").height
    assert known == labelled + sum(step.rows["held_out"] or 0 for step in found.left_out)
    assert found.left_out  # those who had the outcome before
    with_it, without = cohort.outcomes["heart_failure"]
    assert (with_it.n or 0) + (without.n or 0) == labelled
    assert with_it.n == found.events["held_out"]
    assert [group.name for group in cohort.splits] == list(SPLITS)
    assert sum(one.share or 0 for one in cohort.splits[0].sex) == pytest.approx(1, abs=1e-3)


def _splits(flow: pl.DataFrame) -> list[str]:
    """The split of every patient: each is counted once at an index day."""
    day = flow.filter((pl.col("task") == "heart_failure") & (pl.col("index") == 1))
    return [split for split, rows in day.select("split", "rows").iter_rows() for _ in range(rows)]


@given(st.dictionaries(st.text("abcdef", min_size=1), st.tuples(*[st.integers(0, 40)] * 3), max_size=6))
def test_no_reason_is_told_of_a_few(counts: dict[str, tuple[int, int, int]]) -> None:
    reasons = {words: dict(zip(SPLITS, rows, strict=True)) for words, rows in counts.items()}
    told = fold_reasons(reasons, 11)
    assert all(n == 0 or n >= 11 for rows in told.values() for n in rows.values())
    for split in SPLITS:  # what is not told can be had from the whole; then the whole must not be told
        missing = sum(rows[split] for rows in reasons.values()) - sum(rows[split] for rows in told.values())
        assert missing >= 0
    kept = {words: rows for words, rows in told.items() if words != "other reasons"}
    assert all(reasons[words] == rows for words, rows in kept.items())


def test_where_counts_are_small_neither_they_nor_the_whole_are_told(
    reported: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml.evaluation import evaluate

    monkeypatch.setenv("VIGIL_MIN_CELL", "400")
    get_settings.cache_clear()
    evaluate(reported)
    cohort = read_cohort(reported.path)
    assert cohort is not None
    found = cohort.flows["heart_failure"]
    assert found.left_out == ()
    assert found.known["held_out"] is None
    assert found.events["held_out"] is None
    text = words_of(write_report(reported))
    assert "known to the record not told not told not told" in text
    assert "of them with the outcome <400 <400 <400" in text


def test_absent_parts_become_sentences(reported: TrainingRun) -> None:
    for name in (COHORT, "gate.json"):
        (reported.path / name).unlink()
    shutil.rmtree(reported.path / "sequences")
    path = write_report(reported)
    text = words_of(path)
    assert "The gate has not judged this model yet." in text
    assert "This run was evaluated before its cohort was described; evaluate it again." in text
    assert "What the model leans on could not be asked: there are no sequences in" in text
    assert read_attributions(reported.path) is None
    check_whole(path.read_text())


def test_a_run_that_was_not_evaluated_has_no_report(reported: TrainingRun) -> None:
    reported.evaluation.unlink()
    with pytest.raises(NotFoundError, match="no evaluation"):
        write_report(reported)
    assert not reported.report.exists()


def test_attributions_say_what_they_were_made_from(reported: TrainingRun) -> None:
    made = attribute(reported)
    assert Attributions.model_validate_json((reported.path / ATTRIBUTIONS).read_text()) == made
    assert made.snapshot == reported.snapshot.digest
    assert made.day == str(reported.test_day)
    assert made.outcomes["death"] == () or made.outcomes["death"][0].patients >= 11


def test_a_browser_draws_the_report(reported: TrainingRun, tmp_path: Path) -> None:
    check_drawn(write_report(reported), tmp_path, 5000)
