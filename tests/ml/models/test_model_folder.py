"""A model's folder, by Vigil's reader and by Hugging Face's: the same bits, or a refusal; never half of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ml.common.errors import VigilError
from ml.models.files import save_model
from ml.models.medbert import MedBert, load_model
from tests.ml.models.invented_models import VOCABULARY, inputs, model


def hub(folder: Path) -> Any:
    from ml.models.hugging_face import HubMedBert

    return HubMedBert.from_pretrained(folder).eval()


READERS: tuple[Callable[[Path], Any], ...] = (load_model, hub)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('"layers": 2', '"layers": 3'),  # weights that are missing
        ('"layers": 2', '"layers": 1'),  # weights without a place
        ('"feedforward": 48', '"feedforward": 40'),  # weights of another shape
        ('"pooling": "first_mean"', '"pooling": "bigru"'),
        ('"linear_path": true', '"linear_path": false'),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_no_model_comes_back(
    reader: Callable[[Path], Any], written: str, instead: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    config = tmp_path / "m" / "config.json"
    assert written in config.read_text()
    config.write_text(config.read_text().replace(written, instead))
    with pytest.raises(VigilError, match="do not fit"):
        reader(tmp_path / "m")


@pytest.mark.parametrize("reader", READERS)
def test_a_switch_that_there_is_not_is_refused(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text().replace('"first_mean"', '"median"'))
    with pytest.raises(VigilError, match="pooling is none of first, mean"):
        reader(tmp_path / "m")


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_config_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    (tmp_path / "m" / "config.json").write_text(content)
    with pytest.raises(VigilError, match=r"config\.json cannot be read"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("reader", READERS)
def test_weights_that_are_cut_off_are_refused(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(VigilError, match="do not fit"):
        reader(tmp_path / "m")


def test_a_config_from_before_the_switches_is_todays_default(tmp_path: Path) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    config = tmp_path / "m" / "config.json"
    old = ("vocab_size", "hidden", "layers", "heads", "feedforward", "dropout", "norm", "visits", "linear_path")
    old += ("longest", "outcomes", "horizons", "calibration", "vocabulary_digest")
    kept = {key: value for key, value in json.loads(config.read_text()).items() if key in old}
    config.write_text(json.dumps(kept))
    batch = inputs([5, 16], 16)
    made: MedBert = load_model(tmp_path / "m")
    assert torch.equal(made(batch), model()(batch))
