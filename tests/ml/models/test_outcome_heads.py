"""Pooling and heads: what they read, what they never read, and the logit that stays exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.models.heads import log_odds
from ml.models.pooling import Pool, last
from ml.sequences.vocabulary import MASK
from tests.ml.models.invented_models import OUTCOME_CODES, SWITCHED, config, inputs, model

POOLINGS = ("first", "mean", "max", "sum", "attention", "bigru", "first_mean")
LENGTHS = [4, 1, 7]


def pool(kind: str) -> Pool:
    torch.manual_seed(2)
    return Pool(config(pooling=kind))


@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_never_reads_padding(kind: str) -> None:
    made, batch = pool(kind), inputs(LENGTHS, 9)
    hidden = torch.randn(3, 9, 32)
    dirty = torch.where(batch.real[..., None], hidden, torch.full_like(hidden, 1e3)).requires_grad_()
    torch.testing.assert_close(made(hidden, batch), made(dirty, batch), rtol=1e-6, atol=1e-6)
    made(dirty, batch).square().sum().backward()
    assert dirty.grad is not None
    assert not dirty.grad[~batch.real].any()


@settings(deadline=None, max_examples=50)
@given(
    sets=st.lists(st.sets(st.integers(5, 29), min_size=1, max_size=6), min_size=1, max_size=5),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_the_stable_logit_is_the_logit_of_the_softmaxs_sum(sets: list[set[int]], scale: float) -> None:
    torch.manual_seed(len(sets))
    logits = scale * torch.randn(4, 30)
    odds = log_odds(logits, [sorted(codes) for codes in sets])
    share = torch.softmax(logits.double(), -1)
    for column, codes in enumerate(sets):
        inside = share[:, sorted(codes)].sum(-1)
        outside = share[:, [i for i in range(30) if i not in codes]].sum(-1)
        torch.testing.assert_close(odds[:, column].double(), (inside / outside).log(), rtol=1e-5, atol=1e-4)


def test_the_stable_logit_stays_exact_and_has_a_gradient_where_the_softmax_rounds_to_one() -> None:
    logits = torch.zeros(1, 8)
    logits[0, 5], logits[0, 6] = 200.0, -200.0
    logits.requires_grad_()
    odds = log_odds(logits, [[5], [6]])
    torch.testing.assert_close(
        odds.detach(), torch.tensor([[200.0 - torch.tensor(7.0).log(), -400.0]]), atol=2.0, rtol=0
    )
    odds.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 5].item() == pytest.approx(0.0, abs=1e-5)  # +1 as an outcome's, -1 as the other's rival
    assert logits.grad[0, 6].item() == pytest.approx(1.0)


def test_a_mask_head_reads_the_last_real_token_alone() -> None:
    made, batch = model(**SWITCHED["mask head"]), inputs(LENGTHS, 9)
    state = last(made.encode(batch), batch)
    torch.testing.assert_close(made(batch), log_odds(made.decode(state), OUTCOME_CODES))
    assert (last(batch.tokens, batch) == MASK).all()
    assert [name for name, _ in made.named_parameters() if name.startswith("heads.")] == []
