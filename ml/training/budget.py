"""How many tokens a stage may see, and the batches that spend them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ml.models.presets import StagePreset
from ml.sequences.batches import Batch, Item, gather, plan
from ml.sequences.packing import Int64

Draw = Callable[[np.random.Generator], Int64]


@dataclass(frozen=True)
class Budget:
    """``tokens`` to spend over data of ``epoch`` tokens."""

    tokens: int
    epoch: int

    @classmethod
    def of(cls, stage: StagePreset, epoch: int, share: float = 1.0) -> Budget:
        """The preset's budget, at most its number of epochs, times ``share`` (a warm start)."""
        return cls(max(int(min(stage.tokens, stage.max_epochs * epoch) * share), 1), epoch)


def batches(
    source: Item, longest: int, positions: int, budget: Budget, seed: int, draw: Draw | None = None
) -> Iterator[tuple[Batch, int]]:
    """Shuffled batches, epoch after epoch, until the budget is spent; with the tokens seen so far, this batch too.

    Args:
        draw: gives the sequences of an epoch; None takes all.
    """
    rng = np.random.default_rng(seed)
    lengths = source.lengths(longest)
    seen = 0
    while seen < budget.tokens:
        epoch = draw(rng) if draw else np.arange(lengths.size)
        for items in plan(lengths[epoch], positions, rng):
            batch = gather(source, epoch[items], longest)
            seen += int(batch.lengths.sum())
            yield batch, seen
            if seen >= budget.tokens:
                return
