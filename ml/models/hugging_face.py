"""The same model and files as Hugging Face's classes: ``HubMedBert.from_pretrained(folder)``, ``save_pretrained``.

Apart from `ml.models.medbert` because importing transformers takes longer than scoring a shard.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ml.models.config import MODEL_TYPE, MedBertConfig
from ml.models.medbert import Inputs, MedBert


class HubConfig(PretrainedConfig):
    """`MedBertConfig` as a PretrainedConfig."""

    model_type = MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        own = MedBertConfig.from_dict(values)
        for name, value in vars(own).items():
            setattr(self, name, value)
        super().__init__(**{name: value for name, value in values.items() if name not in vars(own)})


class HubMedBert(PreTrainedModel):
    """`MedBert` as a PreTrainedModel: the same parts under the same names, so that the weights fit both."""

    config_class = HubConfig

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        plain = MedBert(MedBertConfig.from_dict(config.to_dict()))
        self.embeddings, self.encoder = plain.embeddings, plain.encoder
        self.decoder, self.heads = plain.decoder, plain.heads
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """`MedBert` has already done it."""

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits of the outcomes, before calibration: ``[batch, outcomes]``."""
        return MedBert.forward(self, inputs)

    def encode(self, inputs: Inputs) -> Tensor:
        """``[batch, length, hidden]``."""
        return MedBert.encode(self, inputs)

    def risks(self, inputs: Inputs) -> Tensor:
        """Calibrated probabilities ``[batch, outcomes]``."""
        return MedBert.risks(self, inputs)
