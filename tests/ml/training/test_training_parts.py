"""The parts of training against references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ml.models import load_preset
from ml.sequences.batches import Batch
from ml.sequences.vocabulary import MASK
from ml.training.finetuning import drawn_negatives
from ml.training.judge import auroc, macro_auroc, platt
from ml.training.masking import mask_codes
from ml.training.optimisation import NotFiniteError, rate, step


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
@settings(deadline=None)
def test_auroc_is_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    if 0 < labels.sum() < labels.size:
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert np.isnan(auroc(labels, scores))


def test_the_macro_auroc_leaves_out_outcomes_without_events_and_rows_that_are_not_eligible() -> None:
    labels = np.array([[1, 0], [0, 0], [np.nan, 0]])
    score, each = macro_auroc(labels, np.array([[2.0, 1], [1, 2], [9, 3]]))
    assert score == 1.0
    assert each[0] == 1.0
    assert np.isnan(each[1])


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (1.0, 0.7), (1.6, 0.0)])
def test_calibration_finds_the_slope_and_intercept_that_were_planted(slope: float, intercept: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 1.5, 60_000)
    labels = (rng.random(logits.size) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(float)
    assert platt(labels, logits) == pytest.approx((slope, intercept), abs=0.06)


def test_calibration_leaves_logits_alone_where_it_has_nothing_to_learn_from() -> None:
    assert platt(np.zeros(10), np.arange(10.0)) == (1.0, 0.0)
    slope, _ = platt(np.array([0.0, 0, 0, 1]), np.array([0.0, 1, 2, -1]))
    assert slope > 0


def batch(rows: int = 40, width: int = 32) -> Batch:
    rng = np.random.default_rng(3)
    tokens = rng.integers(10, 200, (rows, width)).astype(np.int32)
    tokens[:, 0] = 3
    visits = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    visits[:, :2] = 0
    tokens[:, -4:], visits[:, -4:] = 0, 0
    zeros = np.zeros_like(tokens)
    now, stays = np.zeros(rows, np.int32), np.zeros(rows, bool)
    return Batch(np.arange(rows), np.full(rows, width - 4), tokens, zeros, zeros, visits, zeros, now, stays)


def test_masking_hides_its_share_of_events_and_never_static_tokens_or_padding() -> None:
    given_batch = batch()
    masked = mask_codes(given_batch, 0.2, 200, np.random.default_rng(1))
    assert not masked.positions[:, :2].any()
    assert not masked.positions[:, -4:].any()
    assert masked.positions[:, 2:-4].mean() == pytest.approx(0.2, abs=0.04)
    assert (masked.tokens[masked.positions] == MASK).mean() == pytest.approx(0.8, abs=0.08)
    assert np.array_equal(masked.targets, given_batch.tokens[masked.positions])
    assert np.array_equal(masked.tokens[~masked.positions], given_batch.tokens[~masked.positions])


def test_at_least_one_code_is_hidden() -> None:
    assert mask_codes(batch(rows=1), 1e-9, 200, np.random.default_rng(1)).positions.sum() == 1


def test_all_positives_and_a_share_of_the_others_are_drawn_with_unbiased_weights() -> None:
    labels = np.full((1000, 2), np.nan, np.float32)
    labels[:, 0] = 0
    labels[:37, 1] = 1
    draw, weights = drawn_negatives(labels, 0.25)
    rows = draw(np.random.default_rng(0))
    assert set(range(37)) <= set(rows.tolist())
    assert len(set(rows.tolist())) == rows.size == 37 + 241
    assert weights[rows].sum() == pytest.approx(1000)


def test_the_rate_warms_up_and_falls() -> None:
    rates = [rate(share, 0.1) for share in np.linspace(0, 1, 50)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.05
    assert rates[-1] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_an_infinite_loss_leaves_the_weights_alone() -> None:
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(NotFiniteError, match="loss became inf"):
        step(model, optimizer, float("inf"), load_preset("tiny").pretraining, 0.5)
    assert torch.equal(model.weight, before)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone() -> None:
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    (model(torch.ones(1, 2)).sum() * float("inf")).backward()
    with pytest.raises(NotFiniteError, match="gradient norm became"):
        step(model, torch.optim.AdamW(model.parameters()), 1.0, load_preset("tiny").pretraining, 0.5)
    assert torch.equal(model.weight, before)
