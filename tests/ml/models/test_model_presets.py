"""Presets: the published recipes as they were published, and errors that name what is wrong."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ml.common.errors import ConfigError
from ml.models import load_preset, preset_names
from ml.models.config import config_of
from ml.models.medbert import Inputs, new_model
from ml.sequences import Item, gather, tokenise
from ml.sequences.form import Form
from ml.sequences.vocabulary import EMPTY, grow


def test_presets_parse_and_an_unknown_one_names_the_known() -> None:
    assert load_preset("night").model.hidden == 96
    assert load_preset("night").model.layers == 4
    with pytest.raises(ConfigError, match=r"no preset 'noon'.*gru, med-bert, night, tiny, vigil"):
        load_preset("noon")


def test_a_preset_with_a_wrong_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ml.models.presets as presets

    text = (presets.FOLDER / "tiny.yaml").read_text()
    (tmp_path / "odd.yaml").write_text(text.replace("warm_start", "warm_strat"))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="'odd' does not parse"):
        load_preset("odd")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("med-bert", (192, 6, 6, 64)), ("behrt", (288, 6, 12, 512)), ("core-behrt", (192, 6, 6, 64)),
        ("night", (96, 4, 4, 256)), ("tiny", (32, 2, 2, 64)),
    ],
)  # fmt: skip
def test_presets_have_the_published_sizes(name: str, shape: tuple[int, ...]) -> None:
    model = load_preset(name).model
    assert (model.hidden, model.layers, model.heads, model.feedforward) == shape


def test_the_published_recipes_differ_where_their_papers_do() -> None:
    med_bert, behrt, core = (load_preset(name) for name in ("med-bert", "behrt", "core-behrt"))
    assert (med_bert.model.serialization, med_bert.model.age, med_bert.model.time) == (True, "none", "none")
    assert (med_bert.pretraining.one_code, med_bert.pretraining.long_stay, med_bert.model.pooling) == (True, 1.0, "sum")
    assert (behrt.model.visit, behrt.model.age, behrt.model.position) == ("alternating", "table", "visit")
    assert (behrt.form.codes, behrt.form.separators, behrt.pretraining.masked) == ("truncated", True, 0.15)
    assert (core.model.position, core.model.feedforward_kind, core.model.tied) == ("rope", "swiglu_core_behrt", False)
    assert (core.model.time, core.model.scales, core.model.pooling) == ("absolute", "core_behrt", "bigru")
    assert (core.form.contents, core.form.sex, core.pretraining.masked) == (("diagnosis", "drug"), True, 0.20)


@pytest.mark.parametrize("name", ["night", "tiny", "vigil"])
def test_vigils_own_presets_show_sequences_whole(name: str) -> None:
    preset = load_preset(name)
    config = config_of(preset.model, 9, "", preset.longest, preset.form)
    assert config.form() == Form(preset.longest)


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_form_and_second_objective_reach_the_configuration(name: str) -> None:
    preset = load_preset(name)
    config = config_of(preset.model, 9, "d", preset.longest, preset.form, preset.pretraining.long_stay > 0)
    config.check()
    assert config.form() == Form(preset.longest, **preset.form.model_dump())
    assert config.long_stay_head == (name == "med-bert")
    assert {**vars(config)}.items() >= preset.model.model_dump().items()


@pytest.mark.parametrize(
    ("text", "instead", "cause"),
    [
        ("hidden: 32", "hidden: 33", "cannot be built: hidden 33 is not a multiple"),
        ("linear_path: true", "linear_path: false\n  age_powers: false\n  head: mask", "cannot be built: .*next_visit"),
        ("visits: 32", "visits: 32\n  position: rope\n  pooling: sum\n  visit: order", "model.visit"),
        ("longest: 64", "longest: 64\nform: {contents: [weather]}", "form.contents"),
        ("longest: 64", "longest: [", "does not parse"),
    ],
)
def test_a_preset_that_cannot_be_built_says_why(
    text: str, instead: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml.models.presets as presets

    (tmp_path / "odd.yaml").write_text((presets.FOLDER / "tiny.yaml").read_text().replace(text, instead))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=f"'odd'.*{cause}"):
        load_preset("odd")


def test_rotary_positions_need_heads_of_even_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ml.models.presets as presets

    text = (presets.FOLDER / "tiny.yaml").read_text().replace("hidden: 32", "hidden: 30\n  position: rope")
    (tmp_path / "odd.yaml").write_text(text)
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="a head has 15 features"):
        load_preset("odd")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_reads_stored_sequences_in_its_own_form(name: str) -> None:
    preset = load_preset(name)
    codes = ["ICD10CM//I10.1", "ICD10CM//I20.0", "ATC//A10BA02", "LOINC//1"]
    rows = [(s, datetime(2020, month, 1), codes[(s + month) % 4], 1.0) for s in range(5) for month in range(1, 4 + s)]
    view = pl.DataFrame(rows, schema=["subject_id", "time", "code", "numeric_value"], orient="row")
    vocabulary = grow(EMPTY, dict.fromkeys(codes, 9), {})
    small = preset.model.model_copy(update={"hidden": 8 * preset.model.heads, "layers": 1})
    config = config_of(small, vocabulary.size, vocabulary.digest, preset.longest, preset.form)
    config.outcomes, config.horizons = ["stroke"], [365]
    made = new_model(config, torch.from_numpy(vocabulary.parents).long(), vocabulary).eval()
    source = Item([tokenise(view, date(2021, 1, 1), vocabulary)], np.zeros(5, np.int64), np.arange(5))
    inputs = Inputs.of(gather(source, np.arange(5), made.form))
    shown = {vocabulary.tokens[i] for i in inputs.tokens.flatten().tolist()}
    assert ("[SEP]" in shown) == preset.form.separators
    assert ("ATC//A10BA02" in shown) == ("drug" in preset.form.contents)
    assert inputs.now.tolist() == [(date(2021, 1, 1) - date(1970, 1, 1)).days] * 5
    assert made(inputs).isfinite().all()
