"""How much a stage may spend: tokens, minutes, or both."""

from __future__ import annotations

from dataclasses import dataclass

from ml.models.presets import StagePreset
from ml.settings import get_settings


@dataclass(frozen=True)
class Budget:
    """``tokens`` to spend over data of ``epoch`` tokens, within ``minutes`` if they are given."""

    tokens: int
    epoch: int
    minutes: float | None = None

    @classmethod
    def of(cls, stage: StagePreset, epoch: int, share: float = 1.0) -> Budget:
        """The preset's budget, at most its number of epochs, times ``share`` (a warm start).

        VIGIL_TRAINING_MINUTES is a limit of its own: it is not made smaller by a warm start.
        """
        tokens = max(int(min(stage.tokens, stage.max_epochs * epoch) * share), 1)
        limits = [stage.minutes * share if stage.minutes else None, get_settings().training_minutes]
        return cls(tokens, epoch, min((limit for limit in limits if limit), default=None))

    def share(self, tokens: int, seconds: float) -> float:
        """What is spent, 0 … 1: of the tokens or of the time, whichever is further."""
        spent = tokens / self.tokens
        if self.minutes:
            spent = max(spent, seconds / (60.0 * self.minutes))
        return min(spent, 1.0)
