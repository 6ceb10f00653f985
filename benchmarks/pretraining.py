"""Masked language modelling: Vigil's training engine against Hugging Face's BERT, padded to 512 and dynamically.

Run: python -m benchmarks.pretraining [--threads 2] [--rounds 3] [--vocabulary 10000]
     python -m benchmarks.pretraining --loss [--seeds 3]   (held-out loss, see `benchmarks.learning`)

Hidden 192, 6 layers, 6 heads, feed-forward 768; sequences of `benchmarks.sick_people`: log-normal lengths of mean 76,
at most 512; 20 % of the codes hidden. Real tokens (no padding) per second of the clock, in interleaved rounds:
- vigil: the product's engine, one update after the other: batches of like length, gathered and masked within the
  clock, micro-batches on Python threads;
- hugging-face-512: BertForMaskedLM, 32 sequences padded to 512 (`benchmarks.hugging_face`);
- hugging-face-dynamic: the same, padded to the longest of each batch, as CORE-BEHRT does.
Each has the same number of threads. The rates per second of the processor are printed beside, for a machine that is not
alone; the baseline's threads wait for each other busily.

``of_limit``: the FLOP of the real tokens alone, over the best of several matrix products measured in each round with
the same threads and precision. Forward, per token: layers × (8 hidden² + 4 hidden × feedforward + 4 hidden × length of
its sequence), and per hidden code 2 hidden² + 2 hidden × vocabulary; backward twice as much. What is spent on padding,
norms, softmax, dropout, embeddings and the update counts for nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks import hugging_face
from benchmarks.machine import Rate, matrix_rate, median, only_settings, rate_of
from benchmarks.sick_people import LONGEST, make_people
from ml.models.config import MedBertConfig
from ml.models.medbert import MedBert, new_model
from ml.models.presets import PretrainingPreset
from ml.sequences.batches import Batch, Item, gather
from ml.training.budget import Budget
from ml.training.course import Course
from ml.training.engine import Engine
from ml.training.parallel import Work
from ml.training.precision import device, has_fast_bf16
from ml.training.pretraining import masked_codes
from ml.training.sampler import Source

SHAPE: dict[str, Any] = {"hidden": 192, "layers": 6, "heads": 6, "feedforward": 768}
STAGE = PretrainingPreset(
    tokens=10**9,
    max_epochs=10**6,
    batch_positions=4_096,
    micro_batches=2,
    learning_rate=1e-3,
    weight_decay=0.01,
    warmup=0.06,
    clip=1.0,
    masked=0.20,
)
PEOPLE, VIGIL_STEPS, DYNAMIC_STEPS = 20_000, 4, 3  # steps per round; the padded baseline takes one


def vigil_model(vocabulary: int, seed: int, shape: dict[str, Any] = SHAPE) -> MedBert:
    """Of the shape measured here, without categories."""
    torch.manual_seed(seed)
    config = MedBertConfig(vocab_size=vocabulary, longest=LONGEST, dropout=0.1, **shape)
    return new_model(config, torch.zeros(vocabulary, dtype=torch.int64))


@dataclass
class Done:
    """What was done: real tokens, positions computed, and FLOP that the real tokens need (0: not counted)."""

    tokens: int = 0
    positions: int = 0
    flop: float = 0.0


class Contender(Protocol):
    """One way to train; ``intra_op`` is the number of torch's own threads it wants."""

    intra_op: int

    def work(self) -> Done:
        """One round."""


class Vigil:
    """The product's engine on an endless stream of batches."""

    intra_op = 1

    def __init__(
        self,
        source: Item,
        vocabulary: int,
        seed: int,
        folder: Path,
        stage: PretrainingPreset = STAGE,
        shape: dict[str, Any] = SHAPE,
    ) -> None:
        self.model, self.vocabulary, self.stage = vigil_model(vocabulary, seed, shape).to(device()), vocabulary, stage
        self.shape = shape
        self.batches: list[Batch] = []
        lengths = source.lengths(self.model.form)
        drawn = Source(lengths, lambda items: gather(source, items, self.model.form))
        budget = Budget.of(stage, int(lengths.sum()))
        self.engine = Engine(self.model, Course("pretrain", stage, drawn, self._hide, budget, seed, "", folder))

    def _hide(self, batch: Batch, rng: np.random.Generator) -> Work:
        self.batches.append(batch)
        return masked_codes(batch, rng, self.stage.masked, self.vocabulary)

    def work(self) -> Done:
        self.batches.clear()
        for _ in range(VIGIL_STEPS):
            self.engine.advance()
        tokens, positions = sum(int(b.lengths.sum()) for b in self.batches), sum(b.tokens.size for b in self.batches)
        return Done(tokens, positions, sum(flop(batch, self.vocabulary, self.shape) for batch in self.batches))


class HuggingFace:
    """A number of steps of the baseline on batches that are there.

    One padded step takes a minute of a slow core, so few are timed; for the tokens each position counts as much as it
    holds on average over all batches, lest a draw of short sequences counts against the baseline.
    """

    def __init__(
        self, model: hugging_face.Pretraining, made: list[hugging_face.Padded], steps: int, threads: int
    ) -> None:
        self.model, self.batches, self.steps, self.intra_op = model, cycle(made), steps, threads
        self.tokens_per_position = sum(batch.real for batch in made) / sum(batch.tokens.numel() for batch in made)

    def work(self) -> Done:
        taken = list(islice(self.batches, self.steps))
        for batch in taken:
            self.model.step(batch)
        positions = sum(batch.tokens.numel() for batch in taken)
        return Done(round(positions * self.tokens_per_position), positions)


def flop(batch: Batch, vocabulary: int, shape: dict[str, Any]) -> float:
    """Of a training step on the real tokens of a batch; see the head of this file."""
    hidden, layers, feedforward = (shape[name] for name in ("hidden", "layers", "feedforward"))
    lengths = batch.lengths.astype(float)
    codes = float((batch.visits > 0).sum()) * STAGE.masked
    encoder = layers * (lengths.sum() * (8 * hidden + 4 * feedforward) + 4 * (lengths**2).sum()) * hidden
    return float(3 * (encoder + codes * 2 * hidden * (hidden + vocabulary)))


@dataclass
class Found:
    """Of one contender, by round: tokens and FLOP per second."""

    tokens: list[Rate] = field(default_factory=list)
    flop: list[Rate] = field(default_factory=list)
    positions_per_token: float = 0.0


def measure(contender: Contender, found: Found) -> None:
    """One round."""
    work = Done()

    def once() -> float:
        nonlocal work
        work = contender.work()
        return 1.0

    torch.set_num_threads(contender.intra_op)
    each = rate_of(once)
    torch.set_num_threads(1)
    found.tokens.append(each.times(work.tokens))
    found.flop.append(each.times(work.flop))
    found.positions_per_token = work.positions / work.tokens


def baselines(source: Item, vocabulary: int, threads: int) -> tuple[dict[str, HuggingFace], str]:
    """Padded and dynamic, and the attention implementation that is faster."""
    padded = hugging_face.padded_batches(source, vocabulary, LONGEST, STAGE.masked, seed=1)
    dynamic = hugging_face.padded_batches(source, vocabulary, None, STAGE.masked, seed=1)
    models = {name: hugging_face.Pretraining(SHAPE, vocabulary, name) for name in hugging_face.ATTENTIONS}
    tried = {name: Found() for name in models}
    for _ in range(2):  # the first warms up
        for name, model in models.items():
            measure(HuggingFace(model, padded[:1], 1, threads), tried[name])
    attention = max(tried, key=lambda name: tried[name].tokens[-1].wall)
    model = models[attention]
    return {
        "hugging-face-512": HuggingFace(model, padded, 1, threads),
        "hugging-face-dynamic": HuggingFace(model, dynamic, DYNAMIC_STEPS, threads),
    }, attention


def compare(vocabulary: int, threads: int, rounds: int, folder: Path) -> None:
    """Time all contenders in turn, and print."""
    source = make_people(PEOPLE, vocabulary, seed=1)
    torch.set_num_threads(1)
    peers, attention = baselines(source, vocabulary, threads)
    contenders: dict[str, Contender] = {"vigil": Vigil(source, vocabulary, 1, folder), **peers}
    for contender in contenders.values():
        measure(contender, Found())
    precision = torch.bfloat16 if has_fast_bf16(torch.device("cpu")) else torch.float32
    found: dict[str, Found] = {name: Found() for name in contenders}
    limits = []
    for _ in range(rounds):
        limits.append(matrix_rate(threads, precision))
        for name, contender in contenders.items():
            measure(contender, found[name])
    report(found, limits, f"{threads} threads each; {precision}; vocabulary {vocabulary:,}; baseline with {attention}")


def report(found: dict[str, Found], limits: list[Rate], conditions: str) -> None:
    """The table, and the last line."""
    print(f"medians of {len(limits)} rounds; {conditions}\n")
    print(f"{'':24}{'tokens/s':>10}{'lowest':>10}{'highest':>10}{'per cpu s':>11}{'positions/token':>17}")
    for name, one in found.items():
        wall = [rate.wall for rate in one.tokens]
        numbers = (
            f"{statistics.median(wall):10,.0f}{min(wall):10,.0f}{max(wall):10,.0f}{median(one.tokens, 'cpu'):11,.0f}"
        )
        print(f"{name:24}{numbers}{one.positions_per_token:17.2f}")
    shown = ", ".join(f"{median(limits, clock) / 1e9:.0f} per {clock} second" for clock in ("wall", "cpu"))
    print(f"\nmatrix products, GFLOP: {shown}")
    last = {}
    for clock, suffix in (("wall", ""), ("cpu", "_cpu")):
        rates = {name: median(one.tokens, clock) for name, one in found.items()}
        last["ratio" + suffix] = f"{rates['vigil'] / rates['hugging-face-512']:.1f}"
        last["ratio_dynamic" + suffix] = f"{rates['vigil'] / rates['hugging-face-dynamic']:.1f}"
        last["of_limit" + suffix] = f"{median(found['vigil'].flop, clock) / median(limits, clock):.2f}"
    last["tokens_per_second"] = f"{median(found['vigil'].tokens, 'wall'):.0f}"
    print("\n" + " ".join(f"{name}={number}" for name, number in last.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of each contender")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--loss", action="store_true", help="compare what is learnt instead of the speed")
    parser.add_argument("--seeds", type=int, default=3, help="of --loss")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as directory:
        only_settings(home=directory, threads=options.threads)
        if options.loss:
            from benchmarks.learning import compare_losses

            compare_losses(options.vocabulary, options.seeds, Path(directory))
        else:
            compare(options.vocabulary, options.threads, options.rounds, Path(directory))


if __name__ == "__main__":
    main()
