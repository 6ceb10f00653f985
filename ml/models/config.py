"""Configuration of the encoder: what config.json holds. Plain, so that training and scoring need not import
transformers; `ml.models.hugging_face` gives the same files Hugging Face's classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ml.common.errors import ConfigError
from ml.models import switches
from ml.models.presets import FormPreset, ModelPreset
from ml.sequences.form import CONTENTS, Content, Form

MODEL_TYPE = "vigil-medbert"


@dataclass
class MedBertConfig:
    """Shape, switches, form of the sequences, outcomes and calibration of a model; docs/models.md explains each.

    Attributes:
        category_codes: whether a code's vector is its own plus its category's.
        visit: of what of the visit number there is an embedding: nothing, the number, BEHRT's alternating A and B.
        visits: visit numbers told apart; later ones share the last.
        serialization: whether there is an embedding of the order within the visit (Med-BERT).
        serials: orders told apart; later ones share the last.
        age: a vector per whole year (0 … 120, unknown apart), Time2Vec, or nothing.
        time: Time2Vec of the days before the index day, of the hours since 2020-01-26, or nothing.
        scales: how ages and times are scaled and weighted: Vigil's way or CORE-BEHRT's.
        position: learned by place, BEHRT's sinusoids of the visit number, rotary, or nothing.
        tied: whether the decoder's weights are the code embeddings.
        head: a logit per outcome; or the odds of an outcome's codes at the pooled vector or at the next visit's [MASK].
        outcome_codes: per outcome the vocabulary ids of its codes, for the heads 'sum' and 'mask' and for zero-shot.
        age_powers: whether the binary head sees the age, its square and its cube.
        linear_path: whether the binary head has a linear path from the codes beside the encoder.
        long_stay_head: whether there is Med-BERT's second objective, any stay of more than 7 days.
        longest: tokens per sequence; a longer one keeps its latest.
        contents, sex, codes, values, separators, next_visit: the form of the sequences, in training as in scoring.
        outcomes: names of the tasks, one head each, in order.
        horizons: days, by position of the outcome.
        calibration: per outcome ``[slope, intercept]`` applied to the logit (Platt 1999); empty before fine-tuning.
        vocabulary_digest: of the vocabulary that the embeddings belong to.
    """

    vocab_size: int = 5
    hidden: int = 96
    layers: int = 4
    heads: int = 4
    feedforward: int = 256
    dropout: float = 0.1
    norm: switches.Norm = "pre"
    visits: int = 64
    category_codes: bool = True
    visit: switches.Visit = "number"
    serialization: bool = False
    serials: int = 64
    age: switches.Age = "time2vec"
    time: switches.Time = "before"
    scales: switches.Scales = "vigil"
    position: switches.Position = "none"
    feedforward_kind: switches.FeedForward = "gelu"
    tied: bool = True
    pooling: switches.Pooling = "first_mean"
    head: switches.HeadKind = "binary"
    age_powers: bool = True
    linear_path: bool = True
    long_stay_head: bool = False
    longest: int = 128
    contents: list[Content] = field(default_factory=lambda: list(CONTENTS))
    sex: bool = True
    codes: switches.Codes = "full"
    values: bool = True
    separators: bool = False
    next_visit: bool = False
    outcomes: list[str] = field(default_factory=list)
    horizons: list[int] = field(default_factory=list)
    outcome_codes: list[list[int]] = field(default_factory=list)
    calibration: list[list[float]] = field(default_factory=list)
    vocabulary_digest: str = ""

    def check(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ConfigError: a switch has a value that there is not, or two exclude each other.
        """
        for name, kind in get_type_hints(MedBertConfig).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                known = ", ".join(map(str, get_args(kind)))
                raise ConfigError(f"the model's {name} is none of {known}", "fetch or train the model again")
        switches.check(self, self.next_visit)

    def form(self) -> Form:
        """How sequences are shown to the model."""
        return Form(
            longest=self.longest,
            contents=tuple(self.contents),
            sex=self.sex,
            codes=self.codes,
            values=self.values,
            separators=self.separators,
            next_visit=self.next_visit,
        )

    def to_dict(self) -> dict[str, Any]:
        """What config.json says; ``model_type`` and ``architectures`` are for Hugging Face's classes."""
        return {**asdict(self), "model_type": MODEL_TYPE, "architectures": ["HubMedBert"]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MedBertConfig:
        """From config.json; keys of others are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def config_of(
    preset: ModelPreset,
    vocab_size: int,
    vocabulary_digest: str,
    longest: int,
    form: FormPreset | None = None,
    long_stay_head: bool = False,
) -> MedBertConfig:
    """The configuration of a preset on a vocabulary, without outcomes yet.

    Args:
        form: None is everything in full, without separators.
        long_stay_head: whether pretraining has Med-BERT's second objective.
    """
    shown = (form or FormPreset()).model_dump()
    return MedBertConfig(
        vocab_size=vocab_size,
        vocabulary_digest=vocabulary_digest,
        longest=longest,
        long_stay_head=long_stay_head,
        **preset.model_dump(),
        **{**shown, "contents": list(shown["contents"])},
    )
