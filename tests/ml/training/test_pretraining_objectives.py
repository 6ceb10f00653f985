"""Med-BERT's objectives: one masked code per patient, and the long stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ml.sequences.batches import Batch
from ml.sequences.vocabulary import CLS, MASK, PAD
from ml.training.masking import mask_codes
from ml.training.pretraining import masked_codes
from tests.ml.models.invented_models import VOCABULARY, model

LENGTHS = np.array([12, 3, 1, 7])  # the third patient has nothing but [CLS]


def batch() -> Batch:
    rng, shape = np.random.default_rng(2), (4, 16)
    real = np.arange(16)[None] < LENGTHS[:, None]
    tokens = np.where(real, rng.integers(5, VOCABULARY.size, shape), PAD).astype(np.int32)
    tokens[:, 0] = CLS
    visits = np.where(real, np.arange(16)[None], 0).astype(np.int32)
    zeros, now = np.zeros(shape, np.int32), np.full(4, 19_000, np.int32)
    long_stays = np.array([True, False, False, True])
    return Batch(np.arange(4), LENGTHS, tokens, zeros, zeros, visits, zeros, now, long_stays)


def test_one_code_of_each_patient_that_has_any_is_hidden_each_as_likely() -> None:
    given, rng = batch(), np.random.default_rng(0)
    drawn = np.zeros(given.tokens.shape)
    for _ in range(3000):
        masked = mask_codes(given, 0.2, VOCABULARY.size, rng, one_code=True)
        assert masked.positions.sum(1).tolist() == [1, 1, 0, 1]
        drawn += masked.positions
    for row, length in ((0, 12), (1, 3), (3, 7)):
        assert drawn[row, 1:length] / 3000 == pytest.approx(1 / (length - 1), abs=0.03)
    assert drawn[:, 0].sum() == 0


def test_a_hidden_code_is_mostly_masked_and_the_others_stay() -> None:
    given = batch()
    masked = mask_codes(given, 0.2, VOCABULARY.size, np.random.default_rng(5), one_code=True)
    assert np.array_equal(masked.targets, given.tokens[masked.positions])
    assert np.array_equal(masked.tokens[~masked.positions], given.tokens[~masked.positions])
    assert (masked.tokens[masked.positions] == MASK).any()


def test_the_second_objective_is_the_cross_entropy_of_the_long_stays_times_its_weight() -> None:
    made, given = model(long_stay_head=True), batch()
    work = masked_codes(given, np.random.default_rng(0), 0.2, VOCABULARY.size, one_code=True, long_stay=0.5)
    assert work.counts.tolist() == [3, 4]
    codes, stays = work.sums(made)
    alone = masked_codes(given, np.random.default_rng(0), 0.2, VOCABULARY.size, one_code=True)
    assert alone.counts.tolist() == [3]
    assert torch.equal(alone.sums(made), codes[None])
    logits = []
    made.stay.register_forward_hook(lambda *call: logits.append(call[-1]))
    work.sums(made)
    expected = functional.binary_cross_entropy_with_logits(
        logits[0].float(), torch.tensor([1.0, 0, 0, 1]), reduction="sum"
    )
    assert stays.item() == pytest.approx(0.5 * expected.item(), rel=1e-5)
    (codes + stays).backward()
    assert made.stay.out.weight.grad.abs().sum() > 0
