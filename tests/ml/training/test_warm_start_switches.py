"""A night's warm start of every kind of model: heads come along, and a new code begins as its category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ml.models import Preset, load_preset
from ml.models.config import config_of
from ml.models.files import save_model
from ml.models.medbert import MedBert, new_model
from ml.models.outcomes import outcome_codes
from ml.sequences.vocabulary import EMPTY, Vocabulary, grow
from ml.training.setup import Setup, model_for

OLD = grow(EMPTY, {f"ICD10CM//I{i}.{j}": 9 for i in range(10, 14) for j in range(2)}, {})
GROWN = grow(OLD, {"ICD10CM//I10.9": 9, "ICD10CM//Z99.1": 9}, {})
CODE_HEAD: dict[str, Any] = {"linear_path": False, "age_powers": False}


def preset(next_visit: bool = False, **switches: Any) -> Preset:
    tiny = load_preset("tiny")
    form = tiny.form.model_copy(update={"next_visit": next_visit})
    return tiny.model_copy(update={"model": tiny.model.model_copy(update=switches), "form": form})


def old_model(wanted: Preset) -> MedBert:
    config = config_of(wanted.model, OLD.size, OLD.digest, wanted.longest, wanted.form)
    config.outcomes, config.horizons = ["heart disease"], [365]
    config.outcome_codes = outcome_codes(["^ICD10CM//I1[01]"], OLD, config.form())
    torch.manual_seed(0)
    return new_model(config, torch.from_numpy(OLD.parents).long(), OLD)


def warm(wanted: Preset, folder: Path, vocabulary: Vocabulary = GROWN) -> tuple[MedBert, MedBert]:
    old = old_model(wanted)
    save_model(folder / "old", old, OLD, {})
    torch.manual_seed(1)
    return old, model_for(Setup(wanted, vocabulary, {}), folder / "old")


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"head": "sum", "pooling": "attention", **CODE_HEAD},
        {"head": "mask", "next_visit": True, **CODE_HEAD},
        {"pooling": "bigru", "tied": False, "category_codes": False},
    ],
)
def test_every_kind_of_head_comes_along_onto_a_grown_vocabulary(switches: dict[str, Any], tmp_path: Path) -> None:
    old, new = warm(preset(**switches), tmp_path)
    assert new.config.vocab_size == GROWN.size > OLD.size
    assert (new.config.outcomes, new.config.outcome_codes) == (old.config.outcomes, old.config.outcome_codes)
    for name, tensor in old.state_dict().items():
        if name != "embeddings.parents":
            assert torch.equal(new.state_dict()[name][: tensor.shape[0]], tensor), name


@pytest.mark.parametrize("category_codes", [True, False])
def test_a_new_code_begins_with_its_categorys_vector(category_codes: bool, tmp_path: Path) -> None:
    _, new = warm(preset(category_codes=category_codes, tied=False), tmp_path)
    code, category = GROWN.ids["ICD10CM//I10.9"], GROWN.ids["ICD10CM//I10"]
    other = GROWN.ids["ICD10CM//Z99"]  # a category that is new itself
    table = new.embeddings.table()
    torch.testing.assert_close(table[code], table[category])
    torch.testing.assert_close(table[GROWN.ids["ICD10CM//Z99.1"]], table[other])
    assert table[other].abs().sum() > 0
    assert new.decoder.own is not None
    assert torch.equal(new.decoder.own.weight[code], new.decoder.own.weight[category])
