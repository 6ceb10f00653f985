"""The same model and files as Hugging Face's classes: ``HubMedBert.from_pretrained(folder)``, ``save_pretrained``.

Apart from `ml.models.medbert` because importing transformers takes longer than scoring a shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from ml.models.config import MODEL_TYPE, MedBertConfig
from ml.models.medbert import Family, MedBert, bind_folder
from ml.sequences.form import Form


class HubConfig(PretrainedConfig):
    """`MedBertConfig` as a PretrainedConfig."""

    model_type = MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        own = MedBertConfig.from_dict(values)
        for name, value in vars(own).items():
            setattr(self, name, value)
        super().__init__(**{name: value for name, value in values.items() if name not in vars(own)})

    def form(self) -> Form:
        """How sequences are shown to the model."""
        return MedBertConfig.from_dict(self.to_dict()).form()


class HubMedBert(Family, PreTrainedModel):
    """`MedBert` as a PreTrainedModel: the same parts under the same names, so that the weights fit both."""

    config_class = HubConfig

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        plain = MedBert(MedBertConfig.from_dict(config.to_dict()))
        self.embeddings, self.encoder = plain.embeddings, plain.encoder
        self.decoder, self.heads, self.stay = plain.decoder, plain.heads, plain.stay
        self.post_init()

    @classmethod
    def from_pretrained(cls, folder: Any, *arguments: Any, **options: Any) -> Any:
        """As Hugging Face's, and the folder's vocabulary must be the weights'.

        Raises:
            VigilError: it is another one.
        """
        model = super().from_pretrained(folder, *arguments, **options)
        bind_folder(model[0] if isinstance(model, tuple) else model, Path(folder))
        return model

    def _init_weights(self, module: Any) -> None:
        """`MedBert` has already done it."""
