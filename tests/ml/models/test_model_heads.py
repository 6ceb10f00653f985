"""Poolings and heads: padding never counts, and odds of codes are those of the softmax."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.common.errors import VigilError
from ml.models.heads import log_odds
from ml.models.medbert import Inputs, MedBert
from ml.models.outcomes import outcome_codes
from ml.models.pooling import Pool, pooled
from ml.sequences.form import Form
from ml.sequences.vocabulary import EMPTY, grow
from tests.ml.models.invented_models import CODE_HEAD, SWITCHED, VOCABULARY, config, inputs, model, row

POOLINGS = ("first", "mean", "max", "sum", "attention", "bigru", "first_mean")
MASK_HEAD, SUM_HEAD = SWITCHED["mask head"], SWITCHED["sum head"]


def with_padding(batch: Inputs, more: int) -> Inputs:
    """The batch with more padding: [PAD], and nonsense in all that is not a token."""
    changed = {}
    for field in fields(batch):
        tensor = getattr(batch, field.name)
        if field.name != "total" and tensor.ndim == 2:
            changed[field.name] = torch.nn.functional.pad(tensor, (0, more), value=0 if field.name == "tokens" else 7)
    return replace(batch, **changed)


@pytest.mark.parametrize("kind", POOLINGS)
def test_no_pooling_sees_padding(kind: str) -> None:
    torch.manual_seed(0)
    pool, batch = Pool(config(pooling=kind)), inputs([3, 8, 1], 8)
    hidden = torch.randn(3, 8, 32)
    dirty = torch.where(batch.real[..., None], hidden, 1e6)
    out = pool(hidden, batch)
    assert out.shape == (3, pool.width)
    torch.testing.assert_close(pool(dirty, batch), out)
    for i, length in enumerate((3, 8, 1)):
        torch.testing.assert_close(pool(hidden[i : i + 1, :length], row(batch, i, length)), out[i : i + 1])


@pytest.mark.parametrize("name", SWITCHED)
def test_more_padding_changes_no_output(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs([5, 16], 16)
    torch.testing.assert_close(made(with_padding(batch, 16)), made(batch), rtol=1e-4, atol=2e-5)


def test_poolings_without_weights_are_what_they_are_called() -> None:
    hidden, batch = torch.tensor([[[1.0], [5.0], [3.0], [99.0]]]), inputs([3], 4)
    found = {kind: pooled(hidden, batch, kind).item() for kind in ("first", "mean", "max", "sum")}
    assert found == {"first": 1.0, "mean": 3.0, "max": 5.0, "sum": 9.0}


def test_the_bigru_says_its_last_real_state_forwards_and_its_first_backwards() -> None:
    torch.manual_seed(0)
    pool, batch, hidden = Pool(config(pooling="bigru")), inputs([3, 5], 5), torch.randn(2, 5, 32)
    assert pool.gru is not None
    states, _ = pool.gru(hidden[:1, :3])  # [1, 3, 64]
    expected = torch.cat((states[0, -1, :32], states[0, 0, 32:]))
    torch.testing.assert_close(pool(hidden, batch)[0], expected)


@given(st.lists(st.floats(-8, 8), min_size=4, max_size=12), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_log_odds_are_the_logit_of_the_softmaxs_sum(scores: list[float], count: int) -> None:
    logits = torch.tensor([scores])
    probability = torch.softmax(logits.double(), -1)[0, :count].sum()
    expected = torch.log(probability) - torch.log(torch.softmax(logits.double(), -1)[0, count:].sum())
    assert log_odds(logits, [list(range(count))]).item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


def test_log_odds_stay_finite_where_the_softmax_rounds_to_one() -> None:
    assert log_odds(torch.tensor([[300.0, 0.0, 0.0]]), [[0], [1]]).tolist()[0] == pytest.approx([299.307, -300.0])


def test_the_mask_head_reads_the_last_real_position() -> None:
    made, batch = model(**MASK_HEAD), inputs([5, 16], 16)
    hidden = made.encode(batch)
    expected = made.decode(torch.stack((hidden[0, 4], hidden[1, 15])))
    torch.testing.assert_close(made(batch), log_odds(expected, made.config.outcome_codes), rtol=1e-4, atol=1e-5)


def test_the_heads_that_decode_say_before_fine_tuning_what_zero_shot_says() -> None:
    batch = inputs([5, 16], 16)
    for switches, kind in ((MASK_HEAD, "mask"), (SUM_HEAD, "sum")):
        made = model(**switches)
        torch.testing.assert_close(made(batch), made.zero_shot(batch, kind))


@pytest.mark.parametrize("name", ["default", "bigru", "max", "attention", "untied", "mask head"])
@pytest.mark.parametrize("kind", ["sum", "mask"])
def test_zero_shot_needs_no_head(name: str, kind: str) -> None:
    made = model(**{**SWITCHED[name], **CODE_HEAD, "head": "binary"})
    made.heads = None
    out = made.zero_shot(inputs([5, 16, 9], 16), kind)
    assert out.shape == (3, 2)
    assert out.isfinite().all()


def test_zero_shot_by_mask_refuses_sequences_without_a_next_visit() -> None:
    batch = inputs([5, 16], 16)
    batch.tokens[0, 4] = 9
    with pytest.raises(VigilError, match=r"does not end on \[MASK\]"):
        model().zero_shot(batch, "mask")


@pytest.mark.parametrize("codes", [[[5], []], [[5]]])
@pytest.mark.parametrize("head", [MASK_HEAD, SUM_HEAD])
def test_an_outcome_without_codes_is_named(codes: list[list[int]], head: dict[str, object]) -> None:
    with pytest.raises(VigilError, match="outcome stroke"):
        MedBert(config(**{**head, "outcome_codes": codes}))
    with pytest.raises(VigilError, match="outcome stroke"):
        model(outcome_codes=codes).zero_shot(inputs([4], 8), "sum")


def test_long_stays_are_read_from_the_summed_output() -> None:
    made, batch = model(long_stay_head=True), inputs([5, 16], 16)
    hidden = made.encode(batch)
    assert made.stay is not None
    expected = made.stay.out(torch.stack((hidden[0, :5].sum(0), hidden[1].sum(0))))[:, 0]
    torch.testing.assert_close(made.long_stay(hidden, batch), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(VigilError, match="no head of long stays"):
        model().long_stay(hidden, batch)


def test_codes_of_an_outcome_are_those_that_the_form_shows() -> None:
    full = outcome_codes(["^ICD10CM//I1[01]", "^ICD10CM//I10[.]1", "^MEDS_DEATH$"], VOCABULARY, Form())
    names = [[VOCABULARY.tokens[i] for i in codes] for codes in full]
    i10 = ["ICD10CM//I10", "ICD10CM//I10.0", "ICD10CM//I10.1", "ICD10CM//I10.2"]
    assert names == [sorted([*i10, *(c.replace("I10", "I11") for c in i10)]), ["ICD10CM//I10.1"], []]
    cut = outcome_codes(["^ICD10CM//I1[01]", "^ICD10CM//I10[.]1"], VOCABULARY, Form(codes="truncated"))
    assert [[VOCABULARY.tokens[i] for i in codes] for codes in cut] == [["ICD10CM//I10", "ICD10CM//I11"], []]


def test_a_value_bin_stands_for_its_code() -> None:
    import numpy as np

    binned = grow(EMPTY, {"LOINC//1": 99}, {"LOINC//1": np.arange(100, dtype=np.float32)})
    found = outcome_codes(["^LOINC//1$"], binned, Form())[0]
    assert {binned.tokens[i] for i in found} == {t for t in binned.tokens if t.startswith("LOINC")}


@pytest.mark.parametrize("switches", [{}, SUM_HEAD, MASK_HEAD])
def test_logits_of_outcomes_keep_their_digits_where_the_encoder_works_in_bf16(switches: dict[str, Any]) -> None:
    made, batch = model(**switches), inputs([5, 16, 9], 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = made(batch)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_a_model_whose_weights_are_in_bf16_gives_logits() -> None:
    made = model(age="none", time="none", norm="post", linear_path=False, age_powers=False).bfloat16()
    assert made(inputs([5, 16, 9], 16)).isfinite().all()
