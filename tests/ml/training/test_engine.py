"""The loop on a small model: the same end whatever came in between, budgets, memory, stops."""

from __future__ import annotations

import gc
import json
import signal
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ml.common.errors import VigilError
from ml.models import load_preset
from ml.models.dropout import Dropout
from ml.sequences.batches import Batch
from ml.training import interruption
from ml.training.budget import Budget
from ml.training.course import Course
from ml.training.engine import Engine
from ml.training.interruption import OutOfMemoryError, StoppedError
from ml.training.metrics import metrics_path, read_curves
from ml.training.parallel import Replicas, Work
from ml.training.sampler import Position, Sampler, Source
from tests.ml.synthetic_log import deployment

LENGTHS = np.random.default_rng(0).integers(1, 60, 400)
STAGE = load_preset("tiny").pretraining.model_copy(update={"batch_positions": 512})


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[None]:
    with deployment(tmp_path / "home", threads="2", checkpoint_seconds="0"):
        torch.set_num_threads(1)
        yield


class Sums(nn.Module):
    """Predicts the length of a sequence from its tokens; with dropout, so that random state matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table, self.dropout, self.out = nn.Embedding(64, 8), Dropout(0.2), nn.Linear(8, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens > 0)[..., None]
        return self.out((self.dropout(self.table(tokens)) * real).sum(1))[:, 0]


def batch_of(items: np.ndarray) -> Batch:
    width = int(LENGTHS[items].max())
    tokens = np.where(np.arange(width) < LENGTHS[items][:, None], 1 + items[:, None] % 60, 0).astype(np.int32)
    zeros = np.zeros_like(tokens)
    return Batch(items, LENGTHS[items], tokens, zeros, zeros, zeros, zeros, zeros[:, 0], zeros[:, 0] > 0)


def squares(batch: Batch, rng: np.random.Generator) -> Work:
    """Two parts with counts of their own, and noise, as masking is."""
    noise = rng.normal(size=batch.lengths.size).astype(np.float32)
    counts = np.array([batch.lengths.sum(), batch.lengths.size], np.float64)

    def sums(model: nn.Module) -> Tensor:
        error = model(torch.from_numpy(batch.tokens).long()) - torch.from_numpy(batch.lengths / 30 + noise).float()
        return torch.stack(((error**2 * torch.from_numpy(batch.lengths)).sum(), error.abs().sum()))

    return Work(counts, sums, int(batch.lengths.sum()))


def course(folder: Path, tokens: int = 60_000, objective: Any = squares, **more: Any) -> Course:
    budget = Budget(tokens, int(LENGTHS.sum()), more.pop("minutes", None))
    return Course("toy", STAGE, Source(LENGTHS, batch_of), objective, budget, 3, "digest" * 8, folder, **more)


def weights(model: nn.Module) -> list[float]:
    return [float(v) for p in model.parameters() for v in p.detach().flatten()]


class Killed(BaseException):
    """The process is gone."""


class Watcher:
    """Kills the training after some step, and keeps a sum of the weights it saw, which checkpoints must carry."""

    def __init__(self, model: nn.Module, kill_at: int | None = None, patience: int | None = None) -> None:
        self.model, self.kill_at, self.patience = model, kill_at, patience
        self.steps, self.kept = 0, torch.zeros(8)

    def begin(self) -> None: ...

    def after(self, share: float, seen: int) -> dict[str, float]:
        self.steps += 1
        self.kept = self.kept + self.model.out.weight.detach()[0]  # type: ignore[union-attr,operator,index]
        if self.steps == self.kill_at:
            raise Killed
        return {"share": share}

    @property
    def satisfied(self) -> bool:
        return self.steps == self.patience

    def tensors(self) -> dict[str, Tensor]:
        return {"kept": self.kept}

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.kept, self.steps = tensors["kept"], state["steps"]


def test_a_training_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    model = Sums()
    whole = Watcher(model)
    record = Engine(model, course(tmp_path / "whole"), whole).run()
    assert record.steps > 40
    for kill_at in (1, 2, 7, 8, 23, record.steps):
        with pytest.raises(Killed):
            Engine(again := Sums(), course(tmp_path / "killed"), Watcher(again, kill_at)).run()
    again = Sums()
    last = Watcher(again)
    ended = Engine(again, course(tmp_path / "killed"), last).run()
    assert weights(again) == weights(model)
    assert torch.equal(last.kept, whole.kept)
    assert (ended.losses, ended.seen, ended.steps) == (record.losses, record.seen, record.steps)
    assert ended.resumed == 5  # killed at its first step, it had no checkpoint


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_weights(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml.settings import get_settings

    Engine(reference := Sums(), course(tmp_path / "reference")).run()
    monkeypatch.setenv("VIGIL_THREADS", str(threads))
    get_settings.cache_clear()
    Engine(model := Sums(), course(tmp_path / "other")).run()
    assert weights(model) == weights(reference)


class OwnNoise:
    """Random numbers that belong to a sequence, whichever batch it is in."""

    def __init__(self, items: np.ndarray) -> None:
        self.items = items

    def normal(self, size: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=LENGTHS.size)[self.items]


@pytest.mark.parametrize("cuts", [[1], [3, 4, 11], list(range(1, 12))])
def test_the_loss_of_a_step_does_not_depend_on_how_it_is_cut_into_micro_batches(cuts: list[int]) -> None:
    model = Sums()
    model.dropout.share = 0.0
    results = []
    for parts in (np.split(np.arange(12), cuts), [np.arange(12)]):
        works = [squares(batch_of(part), OwnNoise(part)) for part in parts]  # type: ignore[arg-type]
        replicas = Replicas(model, 2, 2)
        loss = replicas.gradients(works, np.sum([work.counts for work in works], axis=0))
        replicas.close()
        results.append((float(loss), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


def test_a_failed_attempt_is_let_go_of_before_the_next_one(tmp_path: Path) -> None:
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def objective(batch: Batch, rng: np.random.Generator) -> Work:
        work = squares(batch, rng)

        def sums(model: nn.Module) -> Tensor:
            if batch.tokens.size > 200:
                graph = work.sums(model)  # what a GPU's memory is full of
                alive.append(sum(one() is not None for one in held))
                held.append(weakref.ref(graph))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return work.sums(model)

        return Work(work.counts, sums, work.tokens)

    stage = STAGE.model_copy(update={"micro_batches": 1})
    engine = Engine(Sums(), replace(course(tmp_path, objective=objective), stage=stage))
    gc.disable()  # it would find what is left of the first attempt at a time of its own
    try:
        engine.run()
    finally:
        gc.enable()
    assert len(alive) == 2
    assert alive == [0, 0]


@given(
    seed=st.integers(0, 2**40),
    takes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    halve_at=st.sets(st.integers(0, 11), max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_an_epoch_shows_every_sequence_once_and_any_position_is_enough_to_go_on(
    seed: int, takes: list[int], halve_at: set[int]
) -> None:
    sampler = Sampler(Source(LENGTHS, batch_of), 512, seed)
    seen: list[int] = []
    for number, count in enumerate(takes):
        before = sampler.position
        if number in halve_at:
            sampler.halve()
        position = sampler.position
        taken = sampler.take(count)
        other = Sampler(Source(LENGTHS, batch_of), 512, seed)
        other.move(Position.of(json.loads(json.dumps(position.__dict__))))
        assert [batch.tolist() for batch in other.take(count)] == [batch.tolist() for batch in taken]
        assert other.position == sampler.position
        assert before.epoch <= sampler.position.epoch
        seen += [int(i) for batch in taken for i in batch]
    for start in range(0, len(seen), LENGTHS.size):
        assert len(set(seen[start : start + LENGTHS.size])) == len(seen[start : start + LENGTHS.size])


def short_of_memory(positions: int) -> Any:
    """An objective that fails as CUDA does for more than some positions; a GPU's own error class."""

    def objective(batch: Batch, rng: np.random.Generator) -> Work:
        work = squares(batch, rng)

        def sums(model: nn.Module) -> Tensor:
            if batch.tokens.size > positions:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return work.sums(model)

        return Work(work.counts, sums, work.tokens)

    return objective


def test_where_memory_is_short_micro_batches_are_halved_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Engine(Sums(), course(tmp_path / "plain")).run()
    record = Engine(model := Sums(), course(tmp_path / "short", objective=short_of_memory(200))).run()
    assert record.halvings == 2
    assert "512 positions do not fit into memory at step 0: going on with 256" in caplog.text
    assert record.seen >= 60_000
    assert record.steps == pytest.approx(plain.steps, rel=0.25)  # as many tokens a step as before
    killed = course(tmp_path / "killed", objective=short_of_memory(200))
    for kill_at in (1, 2, 9):  # what was halved stays halved after a kill
        with pytest.raises(Killed):
            Engine(again := Sums(), killed, Watcher(again, kill_at)).run()
    Engine(again := Sums(), killed, Watcher(again)).run()
    assert weights(again) == weights(model)


def test_a_device_too_small_for_one_sequence_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="even for one sequence at a time: use a smaller preset"):
        Engine(Sums(), course(tmp_path, objective=short_of_memory(20))).run()


def test_a_stage_can_begin_with_halved_micro_batches(tmp_path: Path) -> None:
    engine = Engine(Sums(), course(tmp_path, objective=short_of_memory(200), halvings=2))
    assert engine.run().halvings == 2


def test_a_budget_in_minutes_ends_cleanly_and_the_schedule_follows_it(tmp_path: Path) -> None:
    engine = Engine(Sums(), course(tmp_path, tokens=10**12, minutes=1 / 60))
    record = engine.run()
    assert 1.0 <= record.seconds < 20
    assert record.seen < 10**11
    assert engine.optimizer.param_groups[0]["lr"] < 0.2 * STAGE.learning_rate  # the cosine's end


def test_whichever_budget_is_further_counts() -> None:
    assert Budget(100, 10).share(50, 1e9) == 0.5
    assert Budget(100, 10, minutes=1).share(50, 45) == 0.75
    assert Budget(100, 10, minutes=1).share(90, 45) == 0.9
    assert Budget(100, 10, minutes=1).share(500, 450) == 1.0


@pytest.fixture
def listening() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    interruption.listen()
    yield
    interruption._requested.clear()
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


def test_a_stop_writes_a_checkpoint_says_how_far_it_came_and_the_next_run_goes_on(
    tmp_path: Path, listening: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine(reference := Sums(), course(tmp_path / "reference")).run()

    class Stopper(Watcher):
        def after(self, share: float, seen: int) -> dict[str, float]:
            if self.steps == 10:
                signal.raise_signal(signal.SIGTERM)
            return super().after(share, seen)

    stopped = Sums()
    engine = Engine(stopped, course(tmp_path / "stopped"), Stopper(stopped))
    engine.every = None  # no checkpoint but the stop's
    with pytest.raises(StoppedError, match=r"toy stopped at \d+% \(step 11\): run it again to go on") as caught:
        engine.run()
    assert caught.value.exit_code == 75
    interruption._requested.clear()
    Engine(again := Sums(), course(tmp_path / "stopped"), Watcher(again)).run()
    assert weights(again) == weights(reference)


def test_a_loss_that_is_not_a_number_keeps_the_last_checkpoint_and_says_where(tmp_path: Path) -> None:
    def poisoned(batch: Batch, rng: np.random.Generator) -> Work:
        work = squares(batch, rng)
        bad = float("nan") if 7 in batch.items else 1.0
        return Work(work.counts, lambda model: work.sums(model) * bad, work.tokens)

    todo = course(tmp_path, objective=poisoned)
    with pytest.raises(VigilError, match=r"the loss became nan at step \d+ .* epoch 0, micro-batch \d+, learning rate"):
        Engine(Sums(), todo).run()
    found = todo.checkpoints.newest()
    assert found is not None
    assert found.step > 0
    assert all(torch.isfinite(tensor).all() for tensor in found.under("model").values())


def test_a_satisfied_looker_ends_the_stage_early(tmp_path: Path) -> None:
    model = Sums()
    assert Engine(model, course(tmp_path), Watcher(model, patience=5)).run().steps == 5


def test_points_of_the_curves_are_written_as_they_come_and_none_twice(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Engine(model := Sums(), course(tmp_path), Watcher(model, kill_at=12)).run()
    record = Engine(model := Sums(), course(tmp_path), Watcher(model)).run()
    curves = read_curves(metrics_path(tmp_path, "toy"))
    assert curves is not None
    points = curves.points
    assert [point.step for point in points] == list(range(1, record.steps + 1))  # the watcher looks at every step
    assert {"loss", "gradient_norm", "learning_rate", "tokens_per_second", "share"} == set(points[-1].values)
    assert all(np.isfinite(list(point.values.values())).all() for point in points)


def test_more_processes_than_micro_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ml.training.engine as module
    from ml.training.world import World

    monkeypatch.setattr(module, "world", lambda: World(0, 3))
    with pytest.raises(VigilError, match="3 processes cannot share 2 micro-batches"):
        Engine(Sums(), course(tmp_path))
