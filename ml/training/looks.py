"""Early stopping: looks at the tuning split over the budget, and the best weights so far."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor

from ml.models.medbert import MedBert
from ml.training.data import Labelled
from ml.training.inference import logits_of
from ml.training.judge import macro_auroc

log = logging.getLogger(__name__)


class Best:
    """The best weights so far, by macro AUROC on the tuning split.

    Args:
        model: that learns.
        tuning: what it is judged on.
        looks: over the budget, at equal distances.
        patience: satisfied after this many looks that found nothing better; None never.
    """

    def __init__(self, model: MedBert, tuning: Labelled, looks: int, patience: int | None = None) -> None:
        self.model, self.tuning, self.looks, self.patience = model, tuning, looks, patience
        self.score, self.taken, self.since = -math.inf, 0, 0
        self.weights: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Where the model starts, for the record."""
        self._look(0)

    def after(self, share: float, seen: int) -> dict[str, float]:
        """Look if it is time, and keep the weights if they are the best so far; where the tuning split has no events,
        the latest."""
        if share < (self.taken + 1) / self.looks:
            return {}
        self.taken, self.since = int(share * self.looks), self.since + 1
        score = self._look(seen)
        if math.isnan(score) or score > self.score:
            self.score, self.since = (-math.inf if math.isnan(score) else score), 0
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return {} if math.isnan(score) else {"tuning_macro_auroc": score}

    @property
    def satisfied(self) -> bool:
        """Whether the last looks found nothing better."""
        return self.patience is not None and self.since >= self.patience

    def take(self) -> None:
        """Give the model its best weights."""
        self.model.load_state_dict(self.weights)

    def tensors(self) -> dict[str, Tensor]:
        return self.weights

    def state(self) -> dict[str, Any]:
        score = None if math.isinf(self.score) else self.score
        return {"score": score, "taken": self.taken, "since": self.since, "history": self.history}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.weights, self.history = tensors, state["history"]
        self.score = -math.inf if state["score"] is None else state["score"]
        self.taken, self.since = state["taken"], state["since"]

    def _look(self, seen: int) -> float:
        score, each = macro_auroc(self.tuning.labels, logits_of(self.model, self.tuning.source))
        self.history.append({"tokens": seen, "macro_auroc": _number(score), "auroc": [_number(v) for v in each]})
        log.info("finetune: tuning AUROC %.4f after %d tokens", score, seen)
        return score


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 5)
