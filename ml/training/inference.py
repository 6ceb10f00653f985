"""Logits and risks of many sequences, in length-bucketed batches."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from ml.models.medbert import Inputs, MedBert
from ml.sequences.batches import Item, gather, plan
from ml.settings import get_settings
from ml.training.parallel import on_threads
from ml.training.precision import autocast

if TYPE_CHECKING:
    from collections.abc import Callable

CPU_POSITIONS, GPU_POSITIONS = 1_024, 65_536  # per batch: what a CPU's caches hold, what fills a GPU
GPU_FEEDERS = 4  # threads: while the GPU works for one, the others gather


def logits_of(model: MedBert, source: Item) -> npt.NDArray[np.float32]:
    """``[n, outcomes]`` logits before calibration."""
    return _run(model, source, lambda inputs: model(inputs).float())


def risks_of(model: MedBert, source: Item) -> npt.NDArray[np.float32]:
    """``[n, outcomes]`` calibrated probabilities."""
    return _run(model, source, model.risks)


def zero_shot_of(model: MedBert, source: Item, kind: Literal["sum", "mask"]) -> npt.NDArray[np.float32]:
    """``[n, outcomes]`` logits from pretraining alone, see `MedBert.zero_shot`."""
    return _run(model, source, lambda inputs: model.zero_shot(inputs, kind).float())


def _run(model: MedBert, source: Item, function: Callable[[Inputs], torch.Tensor]) -> npt.NDArray[np.float32]:
    was_training = model.training
    model.eval()
    form = model.form
    out = np.empty((source.row.size, len(model.config.outcomes)), np.float32)

    on_gpu = model.device.type == "cuda"
    turn = Lock() if on_gpu else nullcontext()  # on a GPU one batch at a time; the other threads gather

    @torch.inference_mode()
    def fill(items: npt.NDArray[np.int64]) -> None:
        batch = gather(source, items, form)
        try:
            with turn, autocast(model.device):
                out[items] = function(Inputs.of(batch, model.device)).cpu().numpy()
            return
        except torch.OutOfMemoryError:
            if items.size == 1:
                raise
        for half in np.array_split(items, 2):
            fill(half)

    threads, positions = get_settings().threads, CPU_POSITIONS
    if on_gpu:
        threads, positions = min(threads, GPU_FEEDERS), GPU_POSITIONS
    on_threads(fill, plan(source.lengths(form), positions), threads)
    model.train(was_training)
    return out
