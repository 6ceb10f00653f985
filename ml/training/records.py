"""What a training says about itself: losses, speed, seconds, without a value of any patient."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ml.settings import get_settings
from ml.training.budget import Budget

KEEP = 200  # points of the loss curve that are kept


@dataclass
class Record:
    """Collects the loss curve of one stage."""

    stage: str
    budget: Budget
    losses: list[tuple[int, float]] = field(default_factory=list)
    recent: float = float("nan")
    began: float = field(default_factory=time.monotonic)
    seen: int = 0
    steps: int = 0

    def add(self, loss: float, seen: int) -> None:
        """One step; ``seen`` tokens so far."""
        self.recent = loss if self.steps == 0 else 0.95 * self.recent + 0.05 * loss
        self.steps, self.seen = self.steps + 1, seen
        self.losses.append((seen, self.recent))

    @property
    def speed(self) -> float:
        """Real tokens per second."""
        return self.seen / max(time.monotonic() - self.began, 1e-9)

    def finish(self) -> dict[str, Any]:
        """The record's JSON."""
        stride = max(len(self.losses) // KEEP, 1)
        return {
            "stage": self.stage,
            "tokens": self.seen,
            "epochs": round(self.seen / max(self.budget.epoch, 1), 2),
            "steps": self.steps,
            "losses": self.losses[::stride],
            "final_loss": self.recent if self.steps else None,
            "seconds": round(time.monotonic() - self.began, 2),
            "tokens_per_second": round(self.speed),
            "threads": get_settings().threads,
        }
