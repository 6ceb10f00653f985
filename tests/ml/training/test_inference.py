"""Answers of many sequences: each in its place, also where memory is short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sick_people import make_people
from ml.models.inputs import Inputs
from ml.models.medbert import MedBert
from ml.training.inference import logits_of
from tests.ml.models.invented_models import VOCABULARY, model
from tests.ml.synthetic_log import deployment


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[None]:
    with deployment(tmp_path / "home", threads="2"):
        yield


def short_of_memory(made: MedBert, sequences: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fails as CUDA does for more than some sequences at once; the sizes that were tried."""
    tried, forward = [], made.forward

    def fails(inputs: Inputs) -> torch.Tensor:
        tried.append(inputs.lengths.numel())
        if tried[-1] > sequences:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return forward(inputs)

    monkeypatch.setattr(made, "forward", fails)
    return tried


def test_a_batch_that_does_not_fit_is_cut_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made, people = model(), make_people(200, VOCABULARY.size, seed=1)
    expected = logits_of(made, people)
    tried = short_of_memory(made, 3, monkeypatch)
    np.testing.assert_allclose(logits_of(made, people), expected, atol=1e-5)
    assert max(tried) > 3
    assert len(np.unique(expected, axis=0)) > 150


def test_one_sequence_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    short_of_memory(made, 0, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        logits_of(made, make_people(4, VOCABULARY.size, seed=1))
