"""The model family of Med-BERT (Rasmy 2021): encoder, masked-code decoder, heads of the outcomes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ml.common.errors import VigilError
from ml.common.files import read_json
from ml.models.attention import layout_of
from ml.models.config import MedBertConfig
from ml.models.embeddings import Embeddings
from ml.models.encoder import Encoder
from ml.models.heads import CodeHeads, Decoder, Heads, LongStay, check_outcome_codes, heads_of, log_odds
from ml.models.inputs import Inputs
from ml.models.pooling import last, pooled
from ml.sequences.form import CompiledForm, Form
from ml.sequences.vocabulary import MASK, Vocabulary, load_vocabulary

__all__ = ["Family", "Inputs", "MedBert", "check_vocabulary", "load_model", "new_model"]


class Family:
    """What a model can do, for `MedBert` and for Hugging Face's class of the same parts.

    Attributes:
        packed: how the encoder lays out a batch; None is what is fastest on the device.
        shown: the form on the vocabulary, from `bind` on.
    """

    config: MedBertConfig
    embeddings: Embeddings
    encoder: Encoder
    decoder: Decoder
    stay: LongStay | None
    heads: Heads | CodeHeads | None
    packed: bool | None = None
    shown: CompiledForm | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.code.weight.device

    @property
    def form(self) -> CompiledForm:
        """How sequences are shown to it.

        Raises:
            VigilError: its form leaves tokens out, and `bind` has not said which.
        """
        if self.shown is not None:
            return self.shown
        form = self.config.form()
        if replace(form, separators=False, next_visit=False) != Form(form.longest):
            raise VigilError("the model's form of sequences needs the vocabulary", "bind the model to its vocabulary")
        return CompiledForm(form, None)

    def bind(self, vocabulary: Vocabulary) -> None:
        """Make the form ready for the tokens of a vocabulary.

        Raises:
            VigilError: the weights belong to another vocabulary.
        """
        check_vocabulary(self.config, vocabulary)
        self.shown = CompiledForm.of(self.config.form(), vocabulary)

    def fuse(self) -> None:
        """Compile the layers, so that what stands between their matrix products is fused. They share one program; the
        first batch takes some ten seconds."""
        for layer in self.encoder.layers:
            layer.compile(dynamic=True)

    def encode(self, inputs: Inputs, at: Tensor | None = None) -> Tensor:
        """``[batch, length, hidden]``; what stands at padding is undefined.

        Args:
            at: ``[batch]`` the one place of each sequence that is asked for; then ``[batch, 1, hidden]``.
        """
        layout = layout_of(inputs.lengths, inputs.tokens.shape[1], self.encoder.head_size, self.packed, inputs.total)
        return self.encoder(self.embeddings(inputs), layout, at)

    def decode(self, hidden: Tensor) -> Tensor:
        """Logits of the codes: ``[n, hidden]`` → ``[n, vocabulary]``."""
        return self.decoder(hidden, self.embeddings.table())

    def masked_codes(self, inputs: Inputs, positions: Tensor) -> Tensor:
        """Logits of the codes at chosen positions only: ``[positions, vocabulary]``.

        Args:
            positions: bool ``[batch, length]``.
        """
        return self.decode(self.encode(inputs)[positions])

    def long_stay(self, hidden: Tensor, inputs: Inputs) -> Tensor:
        """Logits ``[batch]`` of any stay of more than 7 days in the past, from what `encode` gave.

        Raises:
            VigilError: the model has no such head.
        """
        if self.stay is None:
            raise VigilError("the model has no head of long stays", "set long_stay in the preset's pretraining")
        return self.stay(hidden, inputs)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits of the outcomes, before calibration: ``[batch, outcomes]``, whatever the kind of head."""
        if self.heads is None:
            raise VigilError("the model has no outcome heads", "fine-tune it first")
        hidden = self.encode(inputs, self._read_at(inputs))
        with in_full(hidden):
            hidden = hidden.to(self.embeddings.code.weight.dtype)
            if isinstance(self.heads, Heads):
                return self.heads(hidden, inputs, self.embeddings.parents)
            return log_odds(self.decode(self.heads(hidden, inputs)), self.config.outcome_codes)

    def _read_at(self, inputs: Inputs) -> Tensor | None:
        """``[batch]`` the one place of each sequence that the outcome heads read; None where they read all."""
        if self.config.head == "mask":
            return inputs.lengths - 1
        return torch.zeros_like(inputs.lengths) if self.config.pooling == "first" else None

    def zero_shot(self, inputs: Inputs, kind: Literal["sum", "mask"]) -> Tensor:
        """Logits of the outcomes ``[batch, outcomes]`` from pretraining alone.

        Args:
            kind: ``mask`` decodes the [MASK] of the next visit, which each sequence must end on; ``sum`` the pooled
                sequence, by the mean where the configured pooling has weights to learn or gives two vectors.

        Raises:
            VigilError: an outcome has no codes, or a sequence does not end on [MASK].
        """
        check_outcome_codes(self.config)
        if kind == "mask" and not bool((last(inputs.tokens, inputs) == MASK).all()):
            raise VigilError("a sequence does not end on [MASK]", "present the sequences in a form with next_visit")
        plain = self.config.pooling if self.config.pooling in ("first", "mean", "max", "sum") else "mean"
        hidden = self.encode(inputs, inputs.lengths - 1 if kind == "mask" else None)
        with in_full(hidden):
            hidden = hidden.to(self.embeddings.code.weight.dtype)
            state = hidden[:, 0] if kind == "mask" else pooled(hidden, inputs, plain)
            return log_odds(self.decode(state), self.config.outcome_codes)

    def risks(self, inputs: Inputs) -> Tensor:
        """Calibrated probabilities ``[batch, outcomes]``."""
        logits = self.forward(inputs).float()
        if self.config.calibration:
            slope, intercept = torch.tensor(self.config.calibration, device=logits.device).T
            logits = logits * slope + intercept
        return torch.sigmoid(logits)


def in_full(hidden: Tensor) -> AbstractContextManager[object]:
    """Without autocast: a logit of an outcome has more digits than bf16, and patients are ranked by them."""
    return torch.autocast(hidden.device.type, enabled=False)


class MedBert(Family, nn.Module):
    """One model for pretraining, fine-tuning and scoring; without outcomes it has no heads.

    Raises:
        VigilError: the configuration cannot be built, or an outcome of a 'sum' or 'mask' head has no codes.
    """

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = heads_of(config)
        self.stay = LongStay(config) if config.long_stay_head else None
        self.apply(_init_weights)


def new_model(config: MedBertConfig, parents: Tensor, vocabulary: Vocabulary | None = None) -> MedBert:
    """A model with random weights; ``parents [vocabulary]`` are the ids of the codes' categories.

    Args:
        vocabulary: to `bind` the model to; a form that leaves nothing out does without.
    """
    model = MedBert(config)
    model.embeddings.parents.copy_(parents)
    if vocabulary is not None:
        model.bind(vocabulary)
    return model


def load_model(folder: Path) -> MedBert:
    """A model from ``config.json`` and ``model.safetensors``, in evaluation mode. Nothing is unpickled.

    Raises:
        VigilError: a file is absent or does not fit the other.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise VigilError(f"{folder} holds no {name}", "train again, or name the folder of a trained model")
    try:
        config = MedBertConfig.from_dict(read_json(folder / "config.json"))
    except (ValueError, AttributeError):
        raise VigilError(f"{folder}/config.json cannot be read", "fetch or train the model again") from None
    model = MedBert(config)
    bind_folder(model, folder)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError):
        raise VigilError(
            f"the weights in {folder} do not fit its config.json", "fetch or train the model again"
        ) from None
    return model.eval()


def bind_folder(model: Family, folder: Path) -> None:
    """Bind a model to the vocabulary of its folder, if there is one.

    Raises:
        VigilError: the weights belong to another vocabulary.
    """
    if (folder / "vocabulary.json").is_file():
        model.bind(load_vocabulary(folder / "vocabulary.json"))


def check_vocabulary(config: MedBertConfig, vocabulary: Vocabulary) -> None:
    """The embeddings must belong to the vocabulary: a token id of another one means another code.

    Raises:
        VigilError: they do not.
    """
    same = not config.vocabulary_digest or config.vocabulary_digest == vocabulary.digest
    if vocabulary.size != config.vocab_size or not same:
        raise VigilError(
            f"the vocabulary of {vocabulary.size} tokens is not the one the model was trained on",
            "put back the vocabulary.json that was saved with the model, or train anew",
        )


def _init_weights(module: nn.Module) -> None:
    """Normal with deviation 0.02, as BERT."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.data.normal_(0.0, 0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.data.zero_()
