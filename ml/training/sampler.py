"""Which sequences come next: a pure function of a seed and a position, so that a resumed run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ml.sequences.batches import Batch, plan
from ml.sequences.packing import Int64

Draw = Callable[[np.random.Generator], Int64]
_EPOCH = 1  # tells the random numbers of an epoch from those of a step


@dataclass(frozen=True)
class Source:
    """What is drawn from.

    Attributes:
        lengths: ``[n]`` tokens per sequence, as presented to the model.
        gather: the batch of some sequences, by their places in ``lengths``.
        draw: gives the sequences of an epoch; None takes all.
    """

    lengths: Int64
    gather: Callable[[Int64], Batch]
    draw: Draw | None = None


@dataclass(frozen=True)
class Position:
    """Where a sampler is: the next micro-batch of an epoch.

    Attributes:
        halved: how often the positions of a micro-batch had been halved when the epoch began.
        cuts: micro-batches of this epoch from which on they were halved once more.
    """

    epoch: int = 0
    batch: int = 0
    halved: int = 0
    cuts: tuple[int, ...] = ()

    @property
    def halvings(self) -> int:
        """How often the positions of a micro-batch are halved by now."""
        return self.halved + len(self.cuts)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Position:
        """From a checkpoint's JSON."""
        return cls(**{**facts, "cuts": tuple(facts["cuts"])})


class Sampler:
    """Shuffled micro-batches of sequences of like length, epoch after epoch, without end.

    Args:
        source: must not be empty.
        positions: per micro-batch, padding included.
        seed: of the order.
    """

    def __init__(self, source: Source, positions: int, seed: int) -> None:
        self.source, self.positions, self.seed = source, positions, seed
        self.move(Position())

    def move(self, position: Position) -> None:
        """Go on from a position."""
        self.position = position
        self._batches = self._plan(position)

    def take(self, count: int) -> list[Int64]:
        """The next micro-batches, as places in the source."""
        taken: list[Int64] = []
        while len(taken) < count:
            if self.position.batch >= len(self._batches):
                self.move(Position(self.position.epoch + 1, 0, self.position.halvings))
            end = self.position.batch + count - len(taken)
            found = self._batches[self.position.batch : end]
            taken += found
            self.position = replace(self.position, batch=self.position.batch + len(found))
        return taken

    def halve(self) -> None:
        """From here on micro-batches of half as many positions; what is left of the epoch is split in its order."""
        self.move(replace(self.position, cuts=(*self.position.cuts, self.position.batch)))

    def _plan(self, position: Position) -> list[Int64]:
        rng = np.random.default_rng([self.seed, _EPOCH, position.epoch])
        chosen = self.source.draw(rng) if self.source.draw else np.arange(self.source.lengths.size)
        size = self.positions >> position.halved
        batches = [chosen[items] for items in plan(self.source.lengths[chosen], size, rng)]
        for cut in position.cuts:
            size >>= 1
            batches[cut:] = [part for batch in batches[cut:] for part in self._split(batch, size)]
        return batches

    def _split(self, batch: Int64, size: int) -> list[Int64]:
        return [batch[items] for items in plan(self.source.lengths[batch], size)]
