"""Presets: YAML files of this folder's ``presets/`` in typed, frozen form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml.common.errors import ConfigError
from ml.models import switches
from ml.sequences.form import CONTENTS, Content

FOLDER = Path(__file__).parent / "presets"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPreset(_Frozen):
    """Shape and switches of the model; `ml.models.config` says what each means."""

    hidden: int = Field(gt=0)
    layers: int = Field(ge=0, description="0: no encoder; pooled by a GRU, that is a recurrent baseline")
    heads: int = Field(gt=0)
    feedforward: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    norm: switches.Norm
    visits: int = Field(gt=1, description="visit numbers told apart; later ones share the last")
    linear_path: bool = Field(description="a linear path from the codes to the outcomes beside the encoder")
    category_codes: bool = True
    visit: switches.Visit = "number"
    serialization: bool = False
    serials: int = Field(64, gt=1, description="orders within a visit told apart; later ones share the last")
    age: switches.Age = "time2vec"
    time: switches.Time = "before"
    scales: switches.Scales = "vigil"
    position: switches.Position = "none"
    feedforward_kind: switches.FeedForward = "gelu"
    tied: bool = True
    pooling: switches.Pooling = "first_mean"
    head: switches.HeadKind = "binary"
    age_powers: bool = True


class FormPreset(_Frozen):
    """What of a stored sequence the model is shown, see `ml.sequences`; its length is the preset's."""

    contents: tuple[Content, ...] = CONTENTS
    sex: bool = True
    codes: switches.Codes = "full"
    values: bool = True
    separators: bool = False
    next_visit: bool = False


class StagePreset(_Frozen):
    """Budget and optimiser of one stage of training.

    The budget is ``tokens``, but never more than ``max_epochs`` over the data.
    """

    tokens: int = Field(gt=0)
    max_epochs: float = Field(gt=0)
    batch_positions: int = Field(gt=0, description="positions per micro-batch, padding included")
    micro_batches: int = Field(gt=0, description="micro-batches per step; as many threads can work at once")
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, lt=1, description="share of the budget")
    clip: float = Field(gt=0, description="largest gradient norm")
    minutes: float | None = Field(None, gt=0, description="the stage ends after this time if its tokens last longer")


class PretrainingPreset(StagePreset):
    """Masked language modelling and, where weighted, Med-BERT's second objective."""

    masked: float = Field(gt=0, lt=1, description="share of the codes that are to be predicted")
    one_code: bool = Field(False, description="one code per patient instead of a share (Med-BERT)")
    long_stay: float = Field(0.0, ge=0, description="weight of the loss of long stays; 0: no such head")


class FinetuningPreset(StagePreset):
    """Multi-outcome fine-tuning."""

    negatives: float = Field(gt=0, le=1, description="share of the rows without any outcome drawn in an epoch")
    head_rate: float = Field(gt=0, description="learning rate of the heads, as a multiple of the encoder's")
    evaluations: int = Field(ge=1, description="looks at the tuning split over the budget")
    patience: int | None = Field(None, ge=1, description="end after this many looks that found nothing better")


class Preset(_Frozen):
    """One preset.

    Attributes:
        longest: tokens per sequence; a longer one keeps its latest.
        warm_start: share of the budgets when training starts from the champion.
        replay: share of an epoch of a warm pretraining that is drawn from patients of whom nothing new is known; None
            takes every patient alike.
    """

    name: str
    model: ModelPreset
    form: FormPreset = FormPreset()
    longest: int = Field(gt=8)
    pretraining: PretrainingPreset
    finetuning: FinetuningPreset
    warm_start: float = Field(gt=0, le=1)
    replay: float | None = Field(None, ge=0, lt=1)


def changed(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """A preset with some values changed: ``{"model": {"hidden": 96}, "longest": 64}``.

    Raises:
        pydantic.ValidationError, ConfigError: the result is no preset, or cannot be built.
    """
    merged = preset.model_dump()
    for name, value in changes.items():
        merged[name] = {**merged[name], **value} if isinstance(value, dict) else value
    made = Preset.model_validate(merged)
    switches.check(made.model, made.form.next_visit)
    return made


def preset_names() -> list[str]:
    """The presets there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        ConfigError: it does not exist, does not parse, or asks for what cannot be built.
    """
    if name not in preset_names():
        raise ConfigError(f"there is no preset '{name}'", f"set VIGIL_PRESET to one of: {', '.join(preset_names())}")
    try:
        preset = Preset(name=name, **yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"the preset '{name}' does not parse ({_first(error)})", "correct its file") from None
    try:
        switches.check(preset.model, preset.form.next_visit)
    except ConfigError as error:
        raise ConfigError(f"the preset '{name}' cannot be built: {error.cause}", error.remedy) from None
    return preset


def _first(error: Exception) -> str:
    """What is wrong, on one line."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
