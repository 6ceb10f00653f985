"""Configuration of the encoder: what config.json holds. Plain, so that training and scoring need not import
transformers; `ml.models.hugging_face` gives the same files Hugging Face's classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ml.models.presets import ModelPreset

MODEL_TYPE = "vigil-medbert"


@dataclass
class MedBertConfig:
    """Shape, outcomes and calibration of a model.

    Attributes:
        visits: visit numbers told apart; later ones share the last.
        linear_path: whether the heads have a linear path from the codes beside the encoder.
        longest: tokens per sequence; a longer one keeps its latest.
        outcomes: names of the tasks, one head each, in order.
        horizons: days, by position of the outcome.
        calibration: per outcome ``[slope, intercept]`` applied to the logit (Platt 1999); empty before fine-tuning.
        vocabulary_digest: of the vocabulary that the embeddings belong to.
    """

    vocab_size: int = 4
    hidden: int = 96
    layers: int = 4
    heads: int = 4
    feedforward: int = 256
    dropout: float = 0.1
    norm: Literal["pre", "post"] = "pre"
    visits: int = 64
    linear_path: bool = True
    longest: int = 128
    outcomes: list[str] = field(default_factory=list)
    horizons: list[int] = field(default_factory=list)
    calibration: list[list[float]] = field(default_factory=list)
    vocabulary_digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What config.json says; ``model_type`` and ``architectures`` are for Hugging Face's classes."""
        return {**asdict(self), "model_type": MODEL_TYPE, "architectures": ["HubMedBert"]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MedBertConfig:
        """From config.json; keys of others are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def config_of(preset: ModelPreset, vocab_size: int, vocabulary_digest: str, longest: int) -> MedBertConfig:
    """The configuration of a preset on a vocabulary, without outcomes yet."""
    return MedBertConfig(
        vocab_size=vocab_size, vocabulary_digest=vocabulary_digest, longest=longest, **preset.model_dump()
    )
