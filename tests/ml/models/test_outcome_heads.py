"""Pooling and heads: what they read, what they never read, and the logit that stays exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.common.errors import VigilError
from ml.models.heads import log_odds
from ml.models.medbert import MedBert
from ml.models.pooling import Pool, last
from ml.sequences.vocabulary import MASK
from tests.ml.models.invented_models import CODE_HEAD, OUTCOME_CODES, SWITCHED, VOCABULARY, config, inputs, model

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


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_pooled_vector_is_what_one_sequence_alone_gives(kind: str) -> None:
    made, batch, hidden = pool(kind), inputs(LENGTHS, 9), torch.randn(3, 9, 32)
    together = made(hidden, batch)
    for i, length in enumerate(LENGTHS):
        alone = hidden[i : i + 1, :length]
        expected = {
            "first": lambda h: h[:, 0],
            "mean": lambda h: h.mean(1),
            "max": lambda h: h.max(1).values,
            "sum": lambda h: h.sum(1),
            "attention": lambda h: (torch.softmax(made.score(h), 1) * h).sum(1),
            "bigru": lambda h: torch.cat((made.gru(h)[0][:, -1, :32], made.gru(h)[0][:, 0, 32:]), -1),
            "first_mean": lambda h: torch.cat((h[:, 0], h.mean(1)), -1),
        }[kind](alone)
        torch.testing.assert_close(together[i : i + 1], expected, rtol=1e-5, atol=1e-6)
    assert together.shape[1] == made.width


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


def test_a_sum_head_decodes_the_pooled_sequence() -> None:
    made, batch = model(**SWITCHED["sum head"]), inputs(LENGTHS, 9)
    hidden = made.encode(batch)
    mean = torch.stack([hidden[i, :n].mean(0) for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(made(batch), log_odds(made.decode(mean), OUTCOME_CODES), rtol=1e-5, atol=1e-5)


def test_zero_shot_scores_of_a_pretrained_model_are_those_its_code_heads_begin_with() -> None:
    batch = inputs(LENGTHS, 9)
    for kind in ("mask", "sum"):
        headed = model(**SWITCHED[f"{kind} head"])
        torch.testing.assert_close(headed.zero_shot(batch, kind), headed(batch))
    binary = model()
    assert binary.zero_shot(batch, "sum").shape == (3, 2)
    assert binary.zero_shot(batch, "mask").shape == (3, 2)


def test_zero_shot_by_the_mask_is_refused_for_sequences_without_one() -> None:
    batch = inputs(LENGTHS, 9)
    tokens = batch.tokens.clone()
    tokens[0, 3] = 9
    with pytest.raises(VigilError, match=r"does not end on \[MASK\]"):
        model().zero_shot(replace(batch, tokens=tokens), "mask")


@pytest.mark.parametrize("switches", [{"head": "mask", "next_visit": True}, {"head": "sum", "pooling": "mean"}])
def test_an_outcome_without_codes_is_named(switches: dict[str, object]) -> None:
    wanted = config(**{**CODE_HEAD, **switches, "outcome_codes": [[9], []]})
    with pytest.raises(VigilError, match="outcome death"):
        MedBert(replace(wanted, outcomes=["stroke", "death"]))
    with pytest.raises(VigilError, match="outcome heart failure"):
        MedBert(config(**{**CODE_HEAD, **switches, "outcome_codes": []}))
    with pytest.raises(VigilError, match="outside the vocabulary"):
        MedBert(config(**{**CODE_HEAD, **switches, "outcome_codes": [[9], [VOCABULARY.size]]}))


def test_zero_shot_names_an_outcome_without_codes_too() -> None:
    with pytest.raises(VigilError, match="outcome stroke"):
        model(outcome_codes=[[9], []]).zero_shot(inputs(LENGTHS, 9), "sum")


def test_long_stays_are_read_off_the_summed_output_of_real_tokens() -> None:
    made, batch = model(long_stay_head=True), inputs(LENGTHS, 9)
    hidden = made.encode(batch)
    assert made.stay is not None
    expected = torch.stack([made.stay.out(hidden[i, :n].sum(0))[0] for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(made.long_stay(hidden, batch), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(VigilError, match="no head of long stays"):
        model().long_stay(hidden, batch)
