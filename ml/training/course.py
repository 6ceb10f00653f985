"""What a stage of training is to do, as the engine sees it: it knows neither codes nor outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ml.models.presets import StagePreset
from ml.sequences.batches import Batch
from ml.training.budget import Budget
from ml.training.checkpoints import Checkpoints
from ml.training.parallel import Work
from ml.training.sampler import Source

Objective = Callable[[Batch, np.random.Generator], Work]


@dataclass(frozen=True)
class Course:
    """What a stage is to do.

    Attributes:
        name: of the stage, as shown.
        stage: optimiser and sizes.
        source: the sequences.
        objective: makes a batch and random numbers into a micro-batch's work.
        budget: when it ends.
        seed: of everything random.
        inputs: digest of all that the stage depends on.
        folder: the run's; checkpoints and metrics go there.
        head_rate: learning rate of the heads, as a multiple of the encoder's.
        halvings: how often the positions of a micro-batch are halved at least, after memory was too small.
    """

    name: str
    stage: StagePreset
    source: Source
    objective: Objective
    budget: Budget
    seed: int
    inputs: str
    folder: Path
    head_rate: float = 1.0
    halvings: int = 0

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints" / self.name, self.inputs)


class Looker(Protocol):
    """Looks at the model while it learns, in the first process alone."""

    def begin(self) -> None:
        """Before the first step."""

    def after(self, share: float, seen: int) -> dict[str, float]:
        """After a step, with the share of the budget and the tokens so far; what a look has measured, else nothing."""

    @property
    def satisfied(self) -> bool:
        """Whether the stage may end before its budget does."""

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint: JSON."""

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Back to a checkpoint."""
