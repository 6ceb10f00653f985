"""Med-BERT (Rasmy 2021): encoder, masked-code decoder, one head per outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.common.errors import VigilError
from ml.common.files import read_json
from ml.models.attention import padding_bias
from ml.models.config import MedBertConfig
from ml.models.embeddings import Embeddings
from ml.models.encoder import Encoder
from ml.models.heads import Decoder, Heads
from ml.sequences.batches import Batch
from ml.sequences.form import CompiledForm, Form


@dataclass(frozen=True)
class Inputs:
    """A batch as tensors: ``tokens, ages, days, visits [batch, length]``, ``lengths [batch]``."""

    tokens: Tensor
    ages: Tensor
    days: Tensor
    visits: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device | None = None) -> Inputs:
        names = ("tokens", "ages", "days", "visits", "lengths")
        return cls(*(torch.from_numpy(getattr(batch, name)).long().to(device) for name in names))


class MedBert(nn.Module):
    """One model for pretraining, fine-tuning and scoring; without outcomes it has no heads."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = Heads(config) if config.outcomes else None
        self.apply(_init_weights)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.code.weight.device

    @property
    def form(self) -> CompiledForm:
        """How sequences are shown to it."""
        return CompiledForm(Form(self.config.longest), None)

    def encode(self, inputs: Inputs) -> Tensor:
        """``[batch, length, hidden]``."""
        embedded = self.embeddings(inputs.tokens, inputs.ages, inputs.days, inputs.visits)
        return self.encoder(embedded, padding_bias(inputs.lengths, inputs.tokens.shape[1]))

    def masked_codes(self, inputs: Inputs, positions: Tensor) -> Tensor:
        """Logits of the codes at chosen positions only: ``[positions, vocabulary]``.

        Args:
            positions: bool ``[batch, length]``.
        """
        return self.decoder(self.encode(inputs)[positions], self.embeddings.table())

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits of the outcomes, before calibration: ``[batch, outcomes]``."""
        if self.heads is None:
            raise VigilError("the model has no outcome heads", "fine-tune it first")
        return self.heads(self.encode(inputs), inputs.tokens, inputs.ages, inputs.lengths, self.embeddings.parents)

    def risks(self, inputs: Inputs) -> Tensor:
        """Calibrated probabilities ``[batch, outcomes]``."""
        logits = self(inputs).float()
        if self.config.calibration:
            slope, intercept = torch.tensor(self.config.calibration, device=logits.device).T
            logits = logits * slope + intercept
        return torch.sigmoid(logits)


def new_model(config: MedBertConfig, parents: Tensor) -> MedBert:
    """A model with random weights; ``parents [vocabulary]`` are the ids of the codes' categories."""
    model = MedBert(config)
    model.embeddings.parents.copy_(parents)
    return model


def load_model(folder: Path) -> MedBert:
    """A model from ``config.json`` and ``model.safetensors``, in evaluation mode. Nothing is unpickled.

    Raises:
        VigilError: a file is absent or does not fit the other.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise VigilError(f"{folder} holds no {name}", "train again, or name the folder of a trained model")
    model = MedBert(MedBertConfig.from_dict(read_json(folder / "config.json")))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError):
        raise VigilError(
            f"the weights in {folder} do not fit its config.json", "fetch or train the model again"
        ) from None
    return model.eval()


def _init_weights(module: nn.Module) -> None:
    """Normal with deviation 0.02, as BERT."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.data.normal_(0.0, 0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.data.zero_()
