"""The baselines on features whose risk is known: each finds what it can, and none is held down by its own tuning."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ml.evaluation.baselines import AGE_SEX_PENALTIES, PENALTIES, Design, TaskRows, fit_boosting, fit_logistic
from ml.evaluation.baselines import make_design as design_of
from ml.evaluation.features import Features
from ml.settings import Settings, get_settings

ROWS, CODES = 6000, 60


def case(of_age: float, of_code: float, level: float, seed: int = 1) -> tuple[Design, TaskRows, NDArray[np.bool_]]:
    """Risk by age and by having code 0 in the last 90 days; 59 codes are noise. A third each learns, tunes, answers."""
    rng = np.random.default_rng(seed)
    ever = sp.csr_matrix((rng.random((ROWS, CODES)) < 0.1).astype(np.float32))
    recent = ever.multiply(rng.random((ROWS, CODES)) < 0.5).tocsr()
    age, sex = rng.uniform(18, 95, ROWS), rng.choice(["F", "M"], ROWS)
    risk = level + of_age * (age - 60) / 20 + of_code * recent[:, [0]].toarray().ravel()
    y = rng.random(ROWS) < 1 / (1 + np.exp(-risk))
    index = pl.DataFrame({"row": np.arange(ROWS, dtype=np.int32)})
    codes = tuple(f"ICD10CM//A{k:02}" for k in range(CODES))
    features = Features(index, age, sex, np.full(ROWS, "A"), codes, (ever, ever, recent), age)
    train, tuning, answered = np.array_split(np.arange(ROWS), 3)
    rows = TaskRows(train, y[train], tuning, y[tuning], pl.DataFrame(), answered)
    return design_of(features, train), rows, y[answered]


def test_a_code_of_the_last_quarter_is_told_from_one_of_long_ago(place: Settings) -> None:
    design, rows, y = case(of_age=0.0, of_code=3.0, level=-2.5)
    assert roc_auc_score(y, fit_logistic(design.linear, rows, PENALTIES)) > 0.6
    assert roc_auc_score(y, fit_boosting(design.counts, rows)) > 0.6
    assert roc_auc_score(y, fit_logistic(design.age_sex, rows, AGE_SEX_PENALTIES)) < 0.55


def test_the_penalty_of_codes_leaves_age_alone_where_the_outcome_is_rare(place: Settings) -> None:
    design, rows, y = case(of_age=1.5, of_code=0.0, level=-3.5)
    by_age = roc_auc_score(y, fit_logistic(design.age_sex, rows, AGE_SEX_PENALTIES))
    assert by_age > 0.7
    assert roc_auc_score(y, fit_logistic(design.linear, rows, PENALTIES)) > by_age - 0.02


def test_boosting_gives_the_same_risks_on_one_thread_and_on_two(
    place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    design, rows, _ = case(of_age=0.5, of_code=1.0, level=-2.0)
    risks = []
    for threads in ("1", "2"):
        monkeypatch.setenv("VIGIL_THREADS", threads)
        get_settings.cache_clear()
        risks.append(fit_boosting(design.counts, rows))
    assert (risks[0] == risks[1]).all()


@pytest.mark.parametrize("outcome", [False, True])
def test_an_outcome_of_one_class_in_training_gives_everybody_its_share(place: Settings, outcome: bool) -> None:
    design, rows, _ = case(of_age=0.5, of_code=1.0, level=-2.0)
    single = TaskRows(rows.train, np.full(2000, outcome), rows.tuning, rows.tuning_y, rows.answered, rows.answered_rows)
    for risks in (fit_logistic(design.linear, single, PENALTIES), fit_boosting(design.counts, single)):
        assert risks.shape == (2000,)
        assert np.unique(risks).tolist() == [(2000 * outcome + 0.5) / 2001]


def test_boosting_without_both_classes_to_tune_on_still_answers(place: Settings) -> None:
    design, rows, y = case(of_age=1.5, of_code=0.0, level=-2.0)
    blind = TaskRows(rows.train, rows.train_y, rows.tuning, np.zeros(2000, bool), rows.answered, rows.answered_rows)
    assert roc_auc_score(y, fit_boosting(design.counts, blind)) > 0.7
