"""Training and scoring on a real GPU, against the CPU and the reference; skipped where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.sick_people import make_people
from ml.models import load_preset
from ml.models.config import MedBertConfig
from ml.models.inputs import Inputs
from ml.models.medbert import MedBert, new_model
from ml.sequences.batches import Item, gather
from ml.training import precision, world
from ml.training.budget import Budget
from ml.training.course import Course
from ml.training.engine import Engine
from ml.training.inference import risks_of
from ml.training.pretraining import masked_codes, masked_loss
from ml.training.sampler import Source
from tests.ml.models.invented_models import inputs, model, with_other
from tests.ml.synthetic_log import deployment
from tests.ml.training.test_engine import Killed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CODES, TOKENS = 300, 400_000
STAGE = load_preset("tiny").pretraining.model_copy(
    update={"batch_positions": 4_096, "micro_batches": 2, "learning_rate": 2e-3}
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[None]:
    with deployment(tmp_path / "home", threads="2", checkpoint_seconds="0"):
        yield


@pytest.fixture(scope="module")
def people() -> Item:
    return make_people(2_000, CODES, seed=1)


def fresh(dropout: float = 0.1) -> MedBert:
    torch.manual_seed(5)
    config = MedBertConfig(vocab_size=CODES, hidden=64, layers=3, heads=4, feedforward=128, dropout=dropout)
    return new_model(config, torch.zeros(CODES, dtype=torch.int64))


def course(made: MedBert, people: Item, folder: Path, positions: int = 4_096) -> Course:
    lengths = people.lengths(made.form)
    source = Source(lengths, partial(gather, people, form=made.form))
    objective = partial(masked_codes, share=0.2, vocabulary=CODES)
    stage = STAGE.model_copy(update={"batch_positions": positions})
    return Course("toy", stage, source, objective, Budget(TOKENS, int(lengths.sum())), 3, "digest" * 8, folder)


class KilledAt:
    """A looker that kills the training after a step."""

    satisfied = False

    def __init__(self, step: int) -> None:
        self.left = step

    def begin(self) -> None: ...

    def after(self, share: float, seen: int) -> dict[str, float]:
        self.left -= 1
        if not self.left:
            raise Killed
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, tensors: dict[str, torch.Tensor], state: dict[str, object]) -> None: ...


def test_bf16_on_the_gpu_learns_what_fp32_on_the_cpu_learns(
    people: Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {}
    for kind in ("cuda", "cpu"):
        with monkeypatch.context() as patch:
            if kind == "cpu":
                patch.setattr(world, "device", lambda: torch.device("cpu"))
                patch.setattr(precision, "has_fast_bf16", lambda where: False)
            made = fresh(dropout=0.0).to(kind)
            Engine(made, course(made, people, tmp_path / kind)).run()
        losses[kind] = masked_loss(made.to("cuda"), make_people(500, CODES, seed=2))
    assert losses["cuda"] < math.log(CODES) - 0.1  # learned something
    assert losses["cuda"] == pytest.approx(losses["cpu"], abs=0.02)


def test_a_killed_training_on_the_gpu_goes_on_to_the_same_weights(people: Item, tmp_path: Path) -> None:
    whole = fresh().cuda()
    Engine(whole, course(whole, people, tmp_path / "whole")).run()
    for kill_at in (3, 20):
        engine = Engine(made := fresh().cuda(), course(made, people, tmp_path / "killed"), KilledAt(kill_at))
        with pytest.raises(Killed):
            engine.run()
    made = fresh().cuda()
    record = Engine(made, course(made, people, tmp_path / "killed"), KilledAt(10**6)).run()
    assert record.resumed == 2
    for one, other in zip(whole.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-2)  # sums of embeddings' gradients have no fixed order
    loss = [masked_loss(model, people) for model in (whole, made)]
    assert loss[0] == pytest.approx(loss[1], abs=5e-3)


def test_a_real_out_of_memory_halves_the_micro_batches_and_the_training_goes_on(
    people: Item, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = fresh().cuda()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300 * 2**20) / total)
    try:
        record = Engine(made, course(made, people, tmp_path, positions=131_072)).run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert record.halvings >= 1
    assert "positions do not fit into memory" in caplog.text
    assert record.seen >= TOKENS


def test_fused_parts_say_what_plain_ones_say_forward_and_backward() -> None:
    found = {}
    for compiled in (False, True):
        made = model(hidden=64, heads=4, dropout=0.0).cuda().train()
        if compiled:
            made.fuse()
        outputs = []
        for lengths in ([5, 16, 9], [40, 3, 30, 7]):
            batch = inputs(lengths, 48)
            batch = replace(batch, **{k: v.cuda() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)})
            with precision.autocast(made.device):
                outputs.append(made(batch).float())
        torch.cat(outputs).square().sum().backward()
        grads = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
        found[compiled] = torch.cat(outputs).detach(), torch.cat(grads)
    torch.testing.assert_close(found[True][0], found[False][0], rtol=2e-2, atol=2e-2)
    one, other = found[True][1], found[False][1]
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.999


def test_on_the_gpu_one_patient_changes_no_other_patients_output() -> None:
    made, batch = model(hidden=64, heads=4).cuda(), inputs([5, 16, 9], 16)

    def out(given: Inputs) -> torch.Tensor:
        there = {k: v.cuda() for k, v in vars(given).items() if isinstance(v, torch.Tensor)}
        with torch.inference_mode(), precision.autocast(made.device):
            return made(replace(given, **there)).float()

    before, after = out(batch), out(with_other(batch, 1, seed=8))
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] - before[1]).abs().max() > 1e-4


def test_risks_from_the_gpu_rank_patients_as_fp32_on_the_cpu_does(
    people: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MedBertConfig(
        vocab_size=CODES, hidden=64, layers=3, heads=4, feedforward=128, outcomes=["a", "b"], horizons=[365, 365],
        calibration=[[1.0, 0.0]] * 2,
    )  # fmt: skip
    torch.manual_seed(3)
    made = new_model(config, torch.zeros(CODES, dtype=torch.int64)).eval()
    for parameter in (made.heads or made).parameters():
        parameter.data *= 20.0
    monkeypatch.setattr(precision, "has_fast_bf16", lambda where: where.type == "cuda")
    on_cpu = risks_of(made, people)
    on_gpu = risks_of(made.cuda(), people)
    assert np.abs(on_cpu - on_gpu).max() < 0.02
    for outcome in range(2):
        assert spearmanr(on_cpu[:, outcome], on_gpu[:, outcome]).statistic > 0.999
