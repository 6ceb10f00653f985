"""The baseline: Hugging Face's BERT in the shape of Vigil's model, as peers run it.

32 sequences at a time in the order they come, padded to 512 or to the longest of the batch; logits at every position;
fp32; transformers' own defaults else (dropout 0.1, also on the attention). Of its attention implementations the faster
one on this machine is taken. The arrays are made before the clock starts, in its favour.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.sick_people import LONGEST
from ml.sequences.batches import Item, gather
from ml.sequences.form import CompiledForm, Form
from ml.training.masking import mask_codes
from ml.training.precision import autocast

BATCH = 32
ATTENTIONS = ("sdpa", "eager")
FORM = CompiledForm(Form(LONGEST), None)
IGNORED = -100  # the label of a position that is not to be predicted


@dataclass(frozen=True)
class Padded:
    """``tokens, mask, labels [batch, width]``; ``real`` tokens that are not padding."""

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    real: int

    def to(self, device: str) -> Padded:
        return Padded(self.tokens.to(device), self.mask.to(device), self.labels.to(device), self.real)


def padded_batches(
    source: Item, vocabulary: int, to: int | None, masked: float, seed: int, at_once: int = BATCH
) -> list[Padded]:
    """Shuffled full batches of ``at_once`` sequences, codes hidden as Vigil hides them.

    Args:
        to: positions per sequence; None pads to the longest of each batch.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(source.row.size)
    made = []
    for start in range(0, order.size - at_once + 1, at_once):
        batch = gather(source, order[start : start + at_once], FORM)
        hidden = mask_codes(batch, masked, vocabulary, rng)
        width = to or int(batch.lengths.max())
        labels = np.full(batch.tokens.shape, IGNORED)
        labels[hidden.positions] = hidden.targets
        tokens, labels = (_widened(array, width, fill) for array, fill in ((hidden.tokens, 0), (labels, IGNORED)))
        mask = np.arange(width)[None, :] < batch.lengths[:, None]
        tensors = [torch.from_numpy(array).long() for array in (tokens, mask, labels)]
        made.append(Padded(tensors[0], tensors[1], tensors[2], int(batch.lengths.sum())))
    return made


def _widened(array: np.ndarray, width: int, fill: int) -> np.ndarray:
    wide = np.full((array.shape[0], width), fill, np.int64)
    kept = min(width, array.shape[1])
    wide[:, :kept] = array[:, :kept]
    return wide


def bert(kind: str, shape: dict[str, int], vocabulary: int, attention: str, **more: Any) -> torch.nn.Module:
    """``kind`` is a class of transformers; ``shape`` has hidden, layers, heads, feedforward."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["feedforward"],
        max_position_embeddings=LONGEST,
        attn_implementation=attention,
        **more,
    )
    model: torch.nn.Module = getattr(transformers, kind)(config)
    return model


class Pretraining:
    """BertForMaskedLM with fused AdamW, one step per batch; on a GPU under bf16 autocast."""

    def __init__(self, shape: dict[str, int], vocabulary: int, attention: str, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.model = bert("BertForMaskedLM", shape, vocabulary, attention).to(device).train()
        self.half = autocast(torch.device(device)) if device == "cuda" else nullcontext()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, batch: Padded) -> float:
        with self.half:
            loss = self.model(input_ids=batch.tokens, attention_mask=batch.mask, labels=batch.labels).loss
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


class Scoring:
    """BertForSequenceClassification, one logit per outcome; on a GPU under bf16 autocast."""

    def __init__(
        self, shape: dict[str, int], vocabulary: int, attention: str, outcomes: int, device: str = "cpu"
    ) -> None:
        torch.manual_seed(0)
        made = bert("BertForSequenceClassification", shape, vocabulary, attention, num_labels=outcomes)
        self.model = made.to(device).eval()
        self.half = autocast(torch.device(device)) if device == "cuda" else nullcontext()

    @torch.inference_mode()
    def risks(self, batch: Padded) -> np.ndarray:
        with self.half:
            logits = self.model(input_ids=batch.tokens, attention_mask=batch.mask).logits
        risks: np.ndarray = torch.sigmoid(logits.float()).cpu().numpy()
        return risks
