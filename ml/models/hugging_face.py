"""The same model and files as Hugging Face's classes: ``HubMedBert.from_pretrained(folder)``, ``save_pretrained``.

Apart from `ml.models.medbert` because importing transformers takes longer than scoring a shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PretrainedConfig, PreTrainedModel

from ml.common.errors import VigilError
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
            VigilError: it is another one, or the weights do not fit config.json; Hugging Face would only warn, and
                leave what it did not find as the memory happens to be.
        """
        asked = options.pop("output_loading_info", False)
        options.update(output_loading_info=True, ignore_mismatched_sizes=True)
        try:
            model, found = super().from_pretrained(folder, *arguments, **options)
            fit = not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        except SafetensorError:
            fit = False
        if not fit:
            raise VigilError(f"the weights in {folder} do not fit its config.json", "fetch or train the model again")
        bind_folder(model, Path(folder))
        return (model, found) if asked else model

    def _init_weights(self, module: Any) -> None:
        """`MedBert` has already done it."""
