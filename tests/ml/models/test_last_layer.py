"""The last layer works for the one place of each sequence that is read: same numbers, same gradients, less work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ml.models.medbert import Inputs, MedBert
from tests.ml.models.invented_models import SWITCHED, inputs, model

FP32 = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = [5, 16, 9, 1]
AT = torch.tensor([4, 3, 0, 0])


def gradients(made: MedBert, batch: Inputs, output: Tensor) -> dict[str, Tensor]:
    made.zero_grad()
    output.square().sum().backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("name", SWITCHED)
def test_one_place_alone_is_as_the_same_place_among_all(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs(LENGTHS, 16)
    rows = torch.arange(len(LENGTHS))
    among, alone = made.encode(batch)[rows, AT], made.encode(batch, AT)
    assert alone.shape == (len(LENGTHS), 1, made.config.hidden)
    torch.testing.assert_close(alone[:, 0], among, **FP32)
    expected, found = gradients(made, batch, among), gradients(made, batch, made.encode(batch, AT)[:, 0])
    assert set(found) == set(expected)
    for key, gradient in found.items():
        size = expected[key].abs().max()
        torch.testing.assert_close(gradient / size, expected[key] / size, rtol=1e-4, atol=1e-4)


def test_a_packed_batch_gives_the_same_place() -> None:
    made, batch = model(pooling="first"), inputs(LENGTHS, 16)
    padded = made.encode(batch, AT)
    made.packed = True
    torch.testing.assert_close(made.encode(batch, AT), padded, **FP32)


def test_what_is_not_read_is_not_computed() -> None:
    made, batch = model(pooling="first"), inputs(LENGTHS, 16)
    seen: list[torch.Size] = []
    for layer in made.encoder.layers:
        layer.feedforward.register_forward_hook(lambda _module, given, _out: seen.append(given[0].shape))
    made(batch)
    width = made.config.hidden
    assert [tuple(shape) for shape in seen] == [(4, 16, width)] * (len(seen) - 1) + [(4, 1, width)]
