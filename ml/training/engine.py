"""The loop of every stage of training: draw, gradient, update, report, look, checkpoint.

A step is a number of micro-batches, each a pure function of the seed, the step and its number: which sequences, which
codes are hidden, which features are dropped. So the same model comes out, bit for bit, on one thread or two, and
after a process was killed and went on from a checkpoint.
"""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ml.common.errors import ConfigError, VigilError
from ml.common.progress import Progress
from ml.settings import get_settings
from ml.training import interruption
from ml.training.checkpoints import restore_training, training_tensors
from ml.training.course import Course, Looker
from ml.training.interruption import OutOfMemoryError, StoppedError
from ml.training.metrics import Metrics, metrics_path
from ml.training.optimisation import NotFiniteError, optimiser, step
from ml.training.parallel import Work
from ml.training.records import Record
from ml.training.sampler import Position, Sampler
from ml.training.world import gradients_of, world

log = logging.getLogger(__name__)

_STEP = 2  # tells the random numbers of a micro-batch from those of an epoch


@dataclass(frozen=True)
class Drawn:
    """Micro-batches of a step: where the sampler was before them, and whether all hold but one sequence."""

    began: Position
    works: list[Work]
    smallest: bool


class Engine:
    """One stage of training on a model, in one process or as one of several."""

    def __init__(self, model: nn.Module, course: Course, looker: Looker | None = None) -> None:
        self.model, self.course, self.looker = model, course, looker
        self.world, settings = world(), get_settings()
        if course.stage.micro_batches < self.world.size:
            raise ConfigError(
                f"{self.world.size} processes cannot share {course.stage.micro_batches} micro-batches a step",
                "set a smaller VIGIL_TRAINING_PROCESSES, or more micro_batches in the preset",
            )
        self.optimizer = optimiser(model, course.stage, course.head_rate)
        self.sampler = Sampler(course.source, course.stage.batch_positions, course.seed)
        self.record = Record(course.name, course.budget.epoch, processes=self.world.size)
        self.checkpoints, self.every = course.checkpoints, settings.checkpoint_seconds
        self.progress = Progress(course.name, course.budget.tokens)
        self.share = 0.0  # of the budget, spent
        self._ahead: Drawn | None = None
        self._resume()
        self.metrics = self._metrics() if self.world.first else None
        self.gradients = gradients_of(model, course.stage.micro_batches, settings.threads, self.world)
        self._clock = self._saved = time.monotonic()

    def run(self) -> Record:
        """Spend the budget.

        Raises:
            StoppedError: the process was asked to stop; a checkpoint was written.
            OutOfMemoryError: the device is too small.
            VigilError: the loss is not finite; the last checkpoint is kept.
        """
        try:
            while self.share < 1.0 and not self._stopped():
                self.advance()
        finally:
            self.gradients.close()
        return self.record

    def advance(self) -> None:
        """One update of the weights."""
        stage = self.course.stage
        loss, tokens, began = self._gradient()
        share = self.course.budget.share(self.record.seen + tokens, self.record.seconds)
        try:
            norm, rate = step(self.model, self.optimizer, loss, stage, share)
        except NotFiniteError as error:
            raise self._not_finite(error, began, share) from None
        self.record.add(loss, tokens)
        seconds = self._tick()
        self.share = self.course.budget.share(self.record.seen, self.record.seconds)
        self._report(seconds, loss=loss, gradient_norm=norm, learning_rate=rate, tokens_per_second=tokens / seconds)
        if self.world.first and self.every is not None and time.monotonic() - self._saved >= self.every:
            self._save()

    def _gradient(self) -> tuple[float, int, Position]:
        """Leave the gradient of the next micro-batches in the model; their loss and tokens over all processes, and
        where they were drawn. While a GPU works on them the step after is drawn.

        Where memory does not suffice, half the positions and twice as many micro-batches: the step stays as large.
        """
        while True:
            drawn, self._ahead = self._ahead or self._draw(self.record.steps), None
            works = drawn.works
            tokens, *counts = self.world.sum(sum(w.tokens for w in works), *np.sum([w.counts for w in works], axis=0))
            try:
                loss = self.gradients.gradients(works, np.maximum(counts, 1.0))
                self._ahead = self._draw(self.record.steps + 1)
                return float(self.world.sum(float(loss))[0]), int(tokens), drawn.began
            except torch.OutOfMemoryError:
                self._memory_is_short(drawn.smallest)
            self._ahead = None
            gc.collect()  # the failed attempt hangs on its own exception, in a cycle
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.sampler.move(drawn.began)
            self.sampler.halve()
            self.record.halvings = self.sampler.position.halvings

    def _draw(self, step: int) -> Drawn:
        """This process's micro-batches of a step."""
        began = self.sampler.position
        items = self.sampler.take(self.course.stage.micro_batches << self.sampler.position.halvings)
        works = []
        for number in range(self.world.rank, len(items), self.world.size):
            rng = np.random.default_rng([self.course.seed, _STEP, step, number])
            seed = int(rng.integers(2**62))
            works.append(replace(self.course.objective(self.course.source.gather(items[number]), rng), seed=seed))
        return Drawn(began, works, all(batch.size == 1 for batch in items))

    @property
    def position(self) -> Position:
        """Of the next step that was not taken yet."""
        return self._ahead.began if self._ahead else self.sampler.position

    def _memory_is_short(self, smallest: bool) -> None:
        positions = self.course.stage.batch_positions >> self.sampler.position.halvings
        if smallest:
            raise OutOfMemoryError(
                f"{self.course.name}: the device's memory is too small even for one sequence at a time",
                "use a smaller preset, or a device with more memory",
            ) from None
        if self.world.size > 1:  # the others wait for this step's gradient: all have to start again
            raise OutOfMemoryError(
                f"{self.course.name}: {positions} positions do not fit into the device's memory",
                "run it again with more halvings, as launch does",
            ) from None
        log.warning(
            "%s: %d positions do not fit into memory at step %d: going on with %d",
            self.course.name, positions, self.record.steps, positions // 2,
        )  # fmt: skip

    def _tick(self) -> float:
        """Add the seconds since the last tick to the record, by the first process's clock."""
        now = time.monotonic()
        seconds = float(self.world.sum(now - self._clock if self.world.first else 0.0)[0])
        self._clock = now
        self.record.seconds += seconds
        return max(seconds, 1e-9)

    def _metrics(self) -> Metrics:
        path = metrics_path(self.course.folder, self.course.name)
        return Metrics(path, self.course.inputs, self.record.steps)

    def _report(self, seconds: float, **values: float) -> None:
        if not self.world.first or self.metrics is None:
            return
        found = self.looker.after(self.share, self.record.seen) if self.looker else {}
        self.metrics.add(self.record.steps, force=bool(found) or self.share >= 1.0, **values, **found)
        done, note = self.share * self.course.budget.tokens, f"loss {self.record.recent:.4f}"
        self.progress.report(round(done), f"{note}, {values['tokens_per_second']:,.0f} tokens/s")

    def _stopped(self) -> bool:
        """Whether the looker is satisfied or, after a checkpoint, whether to raise since a stop was asked for."""
        satisfied = self.world.first and self.looker is not None and self.looker.satisfied
        asked, satisfied_somewhere = self.world.sum(interruption.requested(), satisfied)
        if asked:
            if self.world.first:
                self._save()
            raise StoppedError(
                f"{self.course.name} stopped at {self.share:.0%} (step {self.record.steps})", "run it again to go on"
            )
        return bool(satisfied_somewhere)

    def _not_finite(self, error: NotFiniteError, at: Position, share: float) -> VigilError:
        return VigilError(
            f"{self.course.name}: the {error} at step {self.record.steps} ({share:.0%} of the budget, "
            f"epoch {at.epoch}, micro-batch {at.batch}, learning rate {error.rate:.2e})",
            "set a smaller learning_rate in the preset, or another VIGIL_SEED",
        )

    def _save(self) -> None:
        tensors = training_tensors(self.model, self.optimizer)
        state: dict[str, Any] = {"position": asdict(self.position), "record": self.record.state()}
        if self.looker:
            tensors |= {f"looker.{name}": tensor for name, tensor in self.looker.tensors().items()}
            state["looker"] = self.looker.state()
        self.checkpoints.save(self.record.steps, tensors, state)
        self._saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from the newest checkpoint, or begin."""
        if self.world.first:
            self.checkpoints.clear_unfinished()
        found = self.checkpoints.newest()
        if found:
            restore_training(found, self.model, self.optimizer)
            self.sampler.move(Position.of(found.state["position"]))
            self.record = replace(Record.of(found.state["record"]), processes=self.world.size)
            self.record.resumed += 1
            self.share = self.course.budget.share(self.record.seen, self.record.seconds)
            log.info("%s: going on at step %d (%.0f %%)", self.course.name, found.step, 100 * self.share)
            if self.looker:
                self.looker.restore(found.under("looker"), found.state["looker"])
        elif self.looker and self.world.first:
            self.looker.begin()
        while self.sampler.position.halvings < self.course.halvings:
            self.sampler.halve()
        self.record.halvings = self.sampler.position.halvings
