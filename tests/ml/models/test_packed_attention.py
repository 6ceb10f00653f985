"""Packed and padded batches say the same, and no patient's output depends on another's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.models.attention import Layout, attention, fused, layout_of, padding_bias, plain, segments, varlen
from ml.models.config import config_of
from ml.models.medbert import MedBert
from ml.models.presets import load_preset, preset_names
from tests.ml.models.invented_models import OUTCOMES, SWITCHED, VOCABULARY, inputs, model, shaken, with_other

CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32, sums in another order
PATHS = pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])


def preset_model(name: str) -> MedBert:
    """The preset's switches and form in a small size."""
    preset = load_preset(name)
    small: dict[str, Any] = {"hidden": 8 * preset.model.heads, "layers": 2, "feedforward": 24}
    config = config_of(preset.model.model_copy(update=small), VOCABULARY.size, VOCABULARY.digest, 64, preset.form)
    config.outcomes, config.horizons = list(OUTCOMES), [365, 365]
    return shaken(config)


def outputs(made: MedBert, lengths: list[int], packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Outcome and code logits, and all gradients."""
    made.packed = packed
    made.zero_grad(set_to_none=True)
    batch = inputs(lengths, 16)
    codes = made.masked_codes(batch, batch.real)
    logits = made(batch)
    (logits.square().sum() + codes.square().mean()).backward()
    grads = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    return torch.cat((logits.flatten(), codes.flatten())).detach(), grads


@pytest.mark.parametrize("name", ["default", "post norm", "rope", "swiglu", "bigru", "mask head", "learned"])
def test_packed_and_padded_batches_have_the_same_outputs_and_gradients(name: str) -> None:
    made = model(**SWITCHED[name])
    padded, padded_grads = outputs(made, [3, 16, 1, 9], packed=False)
    packed, packed_grads = outputs(made, [3, 16, 1, 9], packed=True)
    torch.testing.assert_close(packed, padded, **CLOSE)
    assert packed_grads.keys() == padded_grads.keys()
    for key, gradient in padded_grads.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(packed_grads[key], gradient, rtol=1e-3, atol=1e-4 * max(scale, 1.0), msg=key)


@PATHS
@pytest.mark.parametrize("name", preset_names())
def test_in_no_preset_does_one_patient_change_anothers_output(name: str, packed: bool) -> None:
    made, batch = preset_model(name), inputs([5, 16, 9], 16)
    made.packed = packed
    before, after = made(batch), made(with_other(batch, 1, seed=8))
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **CLOSE)
    assert (after[1] - before[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", SWITCHED)
def test_with_no_switch_does_one_patient_change_anothers_output(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs([5, 16, 9], 16)
    made.packed = True
    before, after = made(batch), made(with_other(batch, 1, seed=8))
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], **CLOSE)
    assert (after[1] - before[1]).abs().max() > 1e-5


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_attention_is_the_same_in_both_layouts(lengths: list[int], more: int) -> None:
    width = max(lengths) + more
    generator = torch.Generator().manual_seed(sum(lengths))
    query, key, value = torch.randn(3, len(lengths), width, 2, 8, generator=generator)
    padded, packed = Layout(torch.tensor(lengths), width), Layout.packed(torch.tensor(lengths), width)
    mixed = attention(*(packed.pack(t) for t in (query, key, value)), packed)
    torch.testing.assert_close(mixed, packed.pack(attention(query, key, value, padded)), **CLOSE)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_what_is_unpacked_is_what_was_packed_with_zeros_at_the_padding(lengths: list[int], more: int) -> None:
    width = max(lengths) + more
    layout = Layout.packed(torch.tensor(lengths), width)
    hidden = torch.arange(1.0, len(lengths) * width * 2 + 1).view(len(lengths), width, 2)
    real = (torch.arange(width)[None] < torch.tensor(lengths)[:, None])[..., None]
    assert torch.equal(layout.unpack(layout.pack(hidden)), hidden * real)
    assert layout.starts.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert layout.places().tolist() == [place for length in lengths for place in range(length)]


def test_the_plain_way_equals_the_fused_kernel() -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 2, 4, 16, 8)
    bias = padding_bias(torch.tensor([16, 5]), 16)
    torch.testing.assert_close(plain(query, key, value, bias), fused(query, key, value, bias), **CLOSE)


def test_a_cpu_keeps_its_padding_unless_asked() -> None:
    lengths = torch.tensor([3, 2])
    assert layout_of(lengths, 4, 8).real is None
    real = layout_of(lengths, 4, 8, packed=True).real
    assert real is not None
    assert real.tolist() == [0, 1, 2, 4, 5]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_packed_kernel_says_what_the_reference_says() -> None:
    lengths = torch.tensor([3, 64, 17], device="cuda")
    packed = Layout.packed(lengths, 64)
    query, key, value = torch.randn(3, int(lengths.sum()), 4, 32, device="cuda").bfloat16()
    reference = segments(query.float(), key.float(), value.float(), packed)
    torch.testing.assert_close(varlen(query, key, value, packed).float(), reference, rtol=2e-2, atol=2e-2)
