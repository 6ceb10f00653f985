"""What both stages begin with: threads, seeds, the inputs' digest, a model new or grown from another."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.cohorts import TrainingRun
from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_bytes, sha256_json
from ml.models import Preset, load_preset
from ml.models.config import config_of
from ml.models.files import RECORD
from ml.models.medbert import MedBert, load_model, new_model
from ml.sequences import Vocabulary, load_vocabulary
from ml.settings import get_settings
from ml.training.precision import device
from ml.training.space import tuned


@dataclass(frozen=True)
class Setup:
    """Preset, vocabulary and what the stage depends on."""

    preset: Preset
    vocabulary: Vocabulary
    inputs: dict[str, Any]

    @property
    def digest(self) -> str:
        """Equal inputs give the same model, so a finished one is kept."""
        return sha256_json(self.inputs)


def setup(run: TrainingRun, stage: str, **more: Any) -> Setup:
    """Set threads and seeds, and gather what the stage depends on; the values that a search found are taken.

    Raises:
        VigilError: the sequences are not prepared.
    """
    settings = get_settings()
    vocabulary = load_vocabulary(run.vocabulary)
    preset = load_preset(settings.preset) if stage == "search" else tuned(load_preset(settings.preset), run.path)
    torch.set_num_threads(1)  # threads work on micro-batches, see ml.training.parallel
    seed_all(settings.seed)
    inputs = {
        "stage": stage,
        "snapshot": run.snapshot.digest,
        "index_days": [str(day) for day in run.index_days],
        "vocabulary": vocabulary.digest,
        "preset": preset.model_dump(),
        "seed": settings.seed,
        "split_salt": sha256_bytes(settings.split_salt.encode()),
        **({"minutes": settings.training_minutes} if settings.training_minutes else {}),
        **more,
    }
    return Setup(preset, vocabulary, inputs)


def seed_all(seed: int) -> None:
    """Seed every generator a library may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def weights_digest(folder: Path) -> str:
    """Digest of a trained model's weights, from its record."""
    return str(read_json(folder / RECORD)["weights"])


def model_for(setup: Setup, initial: Path | None) -> MedBert:
    """A new model, or the initial one on the run's grown vocabulary.

    Raises:
        VigilError: the vocabulary does not extend the initial model's, or its shape is not the preset's.
    """
    vocabulary = setup.vocabulary
    preset = setup.preset
    stays = preset.pretraining.long_stay > 0
    config = config_of(preset.model, vocabulary.size, vocabulary.digest, preset.longest, preset.form, stays)
    parents = torch.from_numpy(vocabulary.parents).long()
    if initial is None:
        return new_model(config, parents, vocabulary)
    if not vocabulary.extends(load_vocabulary(initial / "vocabulary.json")):
        raise VigilError(
            "the run's vocabulary does not extend the initial model's",
            "prepare the sequences with the same initial model",
        )
    old = load_model(initial)
    for name in ("outcomes", "horizons", "outcome_codes", "calibration"):  # its heads come along, for fine-tuning
        setattr(config, name, getattr(old.config, name))
    model = new_model(config, parents, vocabulary)
    copy_weights(old, model)
    return model


def placed(model: MedBert) -> MedBert:
    """The model on the device that it is to learn on; its layers compiled where that is a GPU and settings say so."""
    model.to(device())
    if model.device.type == "cuda" and get_settings().compile:
        model.fuse()
    return model


def copy_weights(old: MedBert, new: MedBert) -> None:
    """Start from another model's weights. A new code is its category: its own vector is 0 where the category's is added
    to it anyway, else its category's.

    Raises:
        VigilError: the shapes differ in more than the vocabulary.
    """
    target = new.state_dict()
    for name, tensor in old.state_dict().items():
        if name == "embeddings.parents":
            continue
        goal = target.get(name, torch.empty(0))
        if goal.shape[1:] != tensor.shape[1:] or goal.shape[0] < tensor.shape[0]:
            raise VigilError(
                f"the initial model's {name} is {tuple(tensor.shape)}, the preset's {tuple(goal.shape)}",
                "train from nothing, or set VIGIL_PRESET to the preset of the initial model",
            )
        goal[: tensor.shape[0]] = tensor
        if name in ("embeddings.code.weight", "decoder.own.weight", "heads.codes"):
            added = name == "heads.codes" or (name == "embeddings.code.weight" and new.config.category_codes)
            for code in range(tensor.shape[0], goal.shape[0]):  # a category is before its codes, a code before its bins
                if parent := int(new.embeddings.parents[code]):
                    goal[code] = 0.0 if added else goal[parent]
