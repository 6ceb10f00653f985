"""Attention: the CPU's path and the packed one against the padded reference, and no patient sees another.

The kernel for many lengths needs a GPU; here the packed layout runs with the reference attention per sequence in its
place, so that all around the kernel is checked.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ml.models.attention import attention, layout_of, padding_bias, plain
from ml.models.medbert import Inputs, MedBert
from tests.ml.models.invented_models import SWITCHED, inputs, model, row, with_other

FP32 = {"rtol": 1e-5, "atol": 1e-5}
BF16 = {"rtol": 2e-2, "atol": 2e-2}  # bf16 has 8 bits: 0.4 % in each product, and a few of them follow each other
LENGTHS = [5, 16, 9, 1]


def loss_of(made: MedBert, batch: Inputs) -> Tensor:
    """Everything that can be trained, in one number."""
    hidden = made.encode(batch)
    loss = made(batch).square().sum() + made.decode(hidden[:, 0]).square().mean()
    return loss + made.long_stay(hidden, batch).square().sum() if made.stay is not None else loss


def gradients(made: MedBert, batch: Inputs) -> dict[str, Tensor]:
    made.zero_grad()
    loss_of(made, batch).backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def scaled(gradient: Tensor, reference: Tensor) -> Tensor:
    """In units of the largest entry of the reference."""
    return gradient / reference.abs().max().clamp(min=1e-6)


@pytest.mark.parametrize("name", SWITCHED)
def test_packed_sequences_give_the_outputs_and_gradients_of_padded_ones(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs(LENGTHS, 16)
    reference, expected = made(batch), gradients(made, batch)
    hidden = made.encode(batch)
    made.packed = True
    torch.testing.assert_close(made(batch), reference, **FP32)
    torch.testing.assert_close(made.encode(batch)[batch.real], hidden[batch.real], **FP32)
    found = gradients(made, batch)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(scaled(gradient, expected[key]), scaled(expected[key], expected[key]), **FP32)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", SWITCHED)
def test_one_patient_in_a_batch_changes_no_other_patients_output(name: str, packed: bool) -> None:
    made, batch = model(**SWITCHED[name]), inputs(LENGTHS, 16)
    made.packed = packed
    before, hidden = made(batch), made.encode(batch)
    changed = with_other(batch, 1, seed=5)
    after, moved = made(changed), made.encode(changed)
    others = [0, 2, 3]
    assert torch.equal(before[others], after[others])
    assert torch.equal(hidden[others][batch.real[others]], moved[others][batch.real[others]])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    "name", ["default", "post norm", "rope", "core-behrt swiglu", "bigru", "attention", "mask head"]
)
def test_bf16_autocast_on_the_cpu_is_fp32_within_its_rounding(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs(LENGTHS, 16)
    reference = made.encode(batch)[batch.real]
    for packed in (False, True):
        made.packed = packed
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = made.encode(batch)[batch.real]
            loss = loss_of(made, batch).float()
        scale = reference.abs().max()
        torch.testing.assert_close(hidden.float() / scale, reference / scale, **BF16)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


def test_the_cpu_keeps_padding_and_its_attention_equals_torchs_fused_kernel() -> None:
    torch.manual_seed(1)
    lengths = torch.tensor([16, 5])
    layout = layout_of(lengths, 16, 8)
    assert layout.real is None
    query, key, value = (tensor.requires_grad_() for tensor in torch.randn(3, 2, 16, 4, 8))
    turned = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    fused = torch.nn.functional.scaled_dot_product_attention(*turned, attn_mask=padding_bias(lengths, 16))
    ours = attention(query, key, value, layout)
    torch.testing.assert_close(ours, fused.transpose(1, 2), **FP32)
    assert torch.equal(ours, plain(*turned, padding_bias(lengths, 16)).transpose(1, 2))
    for mine, theirs in zip(
        torch.autograd.grad(ours.square().sum(), (query, key, value)),
        torch.autograd.grad(fused.square().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, **FP32)


def test_learned_places_reach_any_padded_width() -> None:
    made, batch = model(position="learned", longest=20), inputs([20, 7], 32)
    torch.testing.assert_close(made(batch)[1:], made(row(batch, 1, 7)), **FP32)
