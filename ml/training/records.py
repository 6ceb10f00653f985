"""What a training says about itself: losses, speed, seconds, without a value of any patient."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ml.settings import get_settings

KEEP = 200  # points of the loss curve that are kept, at most twice as many while it grows


@dataclass
class Record:
    """The curve of one stage.

    Attributes:
        epoch: tokens of one pass over the data.
        losses: (tokens, smoothed loss), ``stride`` steps apart.
        recent: the smoothed loss.
        halvings: how often memory was too small for a micro-batch.
        resumed: how often the stage went on from a checkpoint.
    """

    stage: str
    epoch: int
    losses: list[tuple[int, float]] = field(default_factory=list)
    stride: int = 1
    recent: float = float("nan")
    seconds: float = 0.0
    seen: int = 0
    steps: int = 0
    halvings: int = 0
    resumed: int = 0
    processes: int = 1

    def add(self, loss: float, tokens: int) -> None:
        """One step."""
        self.recent = loss if self.steps == 0 else 0.95 * self.recent + 0.05 * loss
        self.seen += tokens
        if self.steps % self.stride == 0:
            self.losses.append((self.seen, self.recent))
        self.steps += 1
        if len(self.losses) >= 2 * KEEP:
            self.losses, self.stride = self.losses[::2], 2 * self.stride

    @property
    def speed(self) -> float:
        """Real tokens per second."""
        return self.seen / max(self.seconds, 1e-9)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Record:
        """From a checkpoint."""
        return cls(**{**state, "losses": [(tokens, loss) for tokens, loss in state["losses"]]})

    def finish(self) -> dict[str, Any]:
        """The record's JSON."""
        return {
            "stage": self.stage,
            "tokens": self.seen,
            "epochs": round(self.seen / max(self.epoch, 1), 2),
            "steps": self.steps,
            "losses": self.losses,
            "final_loss": self.recent if self.steps else None,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.speed),
            "threads": get_settings().threads,
            "processes": self.processes,
            "halvings": self.halvings,
            "resumed": self.resumed,
        }
