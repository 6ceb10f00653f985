"""Presets: YAML files of this folder's ``presets/`` in typed, frozen form."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml.common.errors import ConfigError

FOLDER = Path(__file__).parent / "presets"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPreset(_Frozen):
    """Shape of the encoder."""

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    feedforward: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    norm: Literal["pre", "post"]
    visits: int = Field(gt=1, description="visit numbers told apart; later ones share the last")
    linear_path: bool = Field(description="a linear path from the codes to the outcomes beside the encoder")


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
    """Masked language modelling."""

    masked: float = Field(gt=0, lt=1, description="share of the codes that are to be predicted")


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
    longest: int = Field(gt=8)
    pretraining: PretrainingPreset
    finetuning: FinetuningPreset
    warm_start: float = Field(gt=0, le=1)
    replay: float | None = Field(None, ge=0, lt=1)


def preset_names() -> list[str]:
    """The presets there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        ConfigError: it does not exist or does not parse.
    """
    if name not in preset_names():
        raise ConfigError(f"there is no preset '{name}'", f"set VIGIL_PRESET to one of: {', '.join(preset_names())}")
    try:
        return Preset(name=name, **yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(
            f"the preset '{name}' does not parse ({str(error).splitlines()[0]})", "correct its file"
        ) from None
