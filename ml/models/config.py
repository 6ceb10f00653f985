"""Configuration of the encoder, in Hugging Face's form: what config.json holds."""

from __future__ import annotations

from typing import Any, Literal

from transformers import PretrainedConfig

from ml.models.presets import ModelPreset


class MedBertConfig(PretrainedConfig):
    """Shape, outcomes and calibration of a model.

    Attributes:
        outcomes: names of the tasks, one head each, in order.
        horizons: days, by position of the outcome.
        calibration: per outcome ``[slope, intercept]`` applied to the logit (Platt 1999); empty before fine-tuning.
        vocabulary_digest: of the vocabulary that the embeddings belong to.
        longest: tokens per sequence; a longer one keeps its latest.
    """

    model_type = "vigil-medbert"

    def __init__(
        self,
        vocab_size: int = 4,
        hidden: int = 96,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 256,
        dropout: float = 0.1,
        norm: Literal["pre", "post"] = "pre",
        visits: int = 64,
        linear_path: bool = True,
        longest: int = 128,
        outcomes: list[str] | None = None,
        horizons: list[int] | None = None,
        calibration: list[list[float]] | None = None,
        vocabulary_digest: str = "",
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.hidden, self.layers, self.heads = vocab_size, hidden, layers, heads
        self.feedforward, self.dropout, self.norm = feedforward, dropout, norm
        self.visits, self.linear_path, self.longest = visits, linear_path, longest
        self.outcomes, self.horizons = list(outcomes or []), list(horizons or [])
        self.calibration = [list(pair) for pair in calibration or []]
        self.vocabulary_digest = vocabulary_digest
        super().__init__(**kwargs)


def config_of(preset: ModelPreset, vocab_size: int, vocabulary_digest: str, longest: int) -> MedBertConfig:
    """The configuration of a preset on a vocabulary, without outcomes yet."""
    return MedBertConfig(
        vocab_size=vocab_size, vocabulary_digest=vocabulary_digest, longest=longest, **preset.model_dump()
    )
