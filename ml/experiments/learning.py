"""Pretraining and fine-tuning of a variant with the product's own functions; one process, no MLflow."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ml.cohorts import Task, TrainingRun
from ml.common.files import sha256_json
from ml.models import Preset, load_preset
from ml.models.files import finished, save_model
from ml.models.medbert import MedBert, load_model
from ml.models.presets import changed
from ml.sequences import Vocabulary
from ml.training import finetuning, pretraining
from ml.training.data import Labelled
from ml.training.engine import Engine
from ml.training.setup import Setup, model_for, placed, seed_all

Changes = dict[str, Any]
NO_HEADS = {"head": "binary", "pooling": "first", "age_powers": False, "linear_path": False}  # of pretraining


def preset_of(name: str, *changes: Changes) -> Preset:
    """A preset of Vigil's with changes, one after the other."""
    made = load_preset(name)
    for change in changes:
        made = changed(made, change)
    return made


@dataclass(frozen=True)
class Learner:
    """Trains variants on one run.

    Attributes:
        run: labels and token stores.
        vocabulary: its vocabulary.
        folder: pretrained models are kept here, by their set-up.
        seed: of pretraining.
    """

    run: TrainingRun
    vocabulary: Vocabulary
    folder: Path
    seed: int

    def ready(self, preset: Preset, stage: str, seed: int, **more: Any) -> Setup:
        """Threads and seeds set; what the stage depends on."""
        torch.set_num_threads(1)  # as ml.training.setup: threads work on micro-batches
        seed_all(seed)
        inputs = {
            "stage": stage,
            "snapshot": self.run.snapshot.digest,
            "vocabulary": self.vocabulary.digest,
            "model": preset.model.model_dump(),
            "form": preset.form.model_dump(),
            "longest": preset.longest,
            "budget": (preset.pretraining if stage == "pretrain" else preset.finetuning).model_dump(),
            "seed": seed,
            **more,
        }
        return Setup(preset, self.vocabulary, inputs)

    def pretrained(self, preset: Preset) -> Path:
        """Folder of the variant, pretrained; what differs in its outcome heads alone shares it."""
        plain = changed(preset, {"model": NO_HEADS, "form": {"next_visit": False}})
        ready = self.ready(plain, "pretrain", self.seed)
        folder = self.folder / ready.digest[:12]
        if not finished(folder, ready.digest):
            model = placed(model_for(ready, None))
            working = self.folder / f"{ready.digest[:12]}.working"
            todo = replace(pretraining.course(model, self.run, ready, 1.0), folder=working)
            record = Engine(model, todo).run()
            save_model(folder, model, self.vocabulary, {**record.finish(), "inputs": ready.digest, **ready.inputs})
            shutil.rmtree(working)
        return folder

    def start(self, preset: Preset, tasks: tuple[Task, ...], seed: int, pretrained: bool = True) -> MedBert:
        """The variant with outcome heads, before fine-tuning: pretrained, or with random weights."""
        ready = self.ready(preset, "finetune", seed)
        if not pretrained:
            return placed(finetuning.with_heads(model_for(ready, None), tasks, self.vocabulary))
        model = load_model(self.pretrained(preset))
        seed_all(seed)
        for name in NO_HEADS:
            setattr(model.config, name, getattr(preset.model, name))
        model.config.next_visit = preset.form.next_visit
        return placed(finetuning.with_heads(model, tasks, self.vocabulary))

    def finetune(
        self, model: MedBert, preset: Preset, seed: int, training: Labelled, tuning: Labelled | None
    ) -> dict[str, Any]:
        """Train the model in place; the record.

        Args:
            tuning: rows that choose the best weights; None spends the whole budget and keeps the last.
        """
        ready = self.ready(preset, "finetune", seed, rows=sha256_json(training.subjects.tolist()))
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder, prefix=".finetune-") as working:
            todo = replace(finetuning.course(model, training, self.run, ready, 1.0), folder=Path(working))
            if tuning is None:
                finetuning.prepare_heads(model, training)
                return Engine(model, todo).run().finish()
            _, record = finetuning.learn(model, training, tuning, ready, todo)
        return dict(record)


def part(data: Labelled, rows: NDArray[np.integer]) -> Labelled:
    """Some rows of labelled data."""
    source = replace(data.source, store=data.source.store[rows], row=data.source.row[rows])
    return Labelled(source, data.labels[rows], data.subjects[rows], data.index[rows])
