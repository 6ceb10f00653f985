"""Layers that are compiled for a GPU: here by a compiler that runs them as they are, to see what would be compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ml.models import attention
from ml.models.attention import Layout, plain
from tests.ml.models.invented_models import inputs, model

BATCHES = (([5, 16, 9], 16), ([3, 30], 32), ([7, 8, 48, 3], 48))


@torch.library.custom_op("vigil_tests::many_lengths", mutates_args=())
def many_lengths(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, width: int) -> Tensor:
    """What stands in for the GPU's kernel: opaque to the compiler, as that is."""
    mixed = []
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (tensor[start:end].transpose(0, 1) for tensor in (query, key, value))
        mixed.append(plain(q, k, v, q.new_zeros(1)).transpose(0, 1))
    return torch.cat(mixed)


@many_lengths.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, width: int) -> Tensor:
    return torch.empty_like(query)


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def kernel(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        assert layout.starts is not None
        mixed: Tensor = many_lengths(query, key, value, layout.starts, layout.width)
        return mixed

    monkeypatch.setattr(attention, "segments", kernel)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("switches", [{}, {"norm": "post"}, {"feedforward_kind": "swiglu"}, {"position": "rope"}])
def test_all_layers_and_batches_share_one_program_that_says_what_plain_layers_say(switches: dict[str, Any]) -> None:
    programs = 0

    def as_it_is(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
        nonlocal programs
        programs += 1
        return graph

    made = model(layers=3, **switches)
    made.packed = True
    with torch.no_grad():
        expected = [made.encode(inputs(*batch)) for batch in BATCHES]
        for layer in made.encoder.layers:
            layer.compile(dynamic=True, fullgraph=True, backend=as_it_is)
        found = [made.encode(inputs(*batch)) for batch in BATCHES]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert 1 <= programs <= 2  # a second where what was one size at first turns out to be many


def test_a_compiled_model_has_the_same_names_of_weights() -> None:
    made = model()
    names = list(made.state_dict())
    made.fuse()
    assert list(made.state_dict()) == names
