"""On a GPU: pretraining at hidden 768 in bf16 and scoring, against Hugging Face's BERT; model FLOP utilisation.

Run: python -m benchmarks.gpu [--rounds 3] [--vocabulary 10000] [--positions 32768] [--micro-batches 4]

Hidden 768, 12 layers, 12 heads, feed-forward 3072; sequences of `benchmarks.sick_people`: log-normal lengths of mean
76, at most 512; 20 % of the codes hidden. Real tokens (no padding) per second, in interleaved rounds:
- vigil: the product's engine with its compiled layers, one update after the other: drawn, gathered and masked within
  the clock; ``vigil-eager``: the same without compilation;
- hugging-face-512: BertForMaskedLM under bf16 autocast with torch's fused attention, 128 sequences padded to 512;
  hugging-face-dynamic: 32 sequences padded to the longest of each batch. Their tensors are on the device before.
Scoring (patients per second, 8 outcomes) likewise, in inference mode.

``mfu``: the FLOP of the real tokens alone (the formula of `benchmarks.pretraining`) over the card's published dense
bf16 rate; ``of_limit``: over the rate of a large bf16 matrix product measured in each round. ``spearman``: the least
rank correlation, over the outcomes, of risks in bf16 with risks in fp32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import hugging_face
from benchmarks.machine import only_settings
from benchmarks.pretraining import PEOPLE, STAGE, Done, HuggingFace, Vigil
from benchmarks.scoring import vigil_model
from benchmarks.sick_people import LONGEST, make_people
from ml.models.medbert import MedBert
from ml.sequences.batches import Item
from ml.training.inference import risks_of

SHAPE: dict[str, Any] = {"hidden": 768, "layers": 12, "heads": 12, "feedforward": 3072}
DENSE_BF16 = 989e12  # FLOP per second: H100 SXM and H200 by NVIDIA's data sheet
PRODUCT, PRODUCTS = 8_192, 10
SECONDS = 3.0  # of each contender in a round, at least
OUTCOMES = 8
BATCHES = 30  # of each peer, over and over


def timed(work: Callable[[], Done]) -> tuple[float, float]:
    """Tokens and FLOP per second, over as many calls as fill `SECONDS`."""
    torch.cuda.synchronize()
    began, tokens, flop = time.perf_counter(), 0, 0.0
    while time.perf_counter() - began < SECONDS:
        done = work()
        tokens, flop = tokens + done.tokens, flop + done.flop
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return tokens / seconds, flop / seconds


def limit() -> float:
    """FLOP per second of a large bf16 matrix product."""
    left, right = torch.randn(2, PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16)
    out = left @ right
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(PRODUCTS):
        torch.mm(left, right, out=out)
    end.record()
    torch.cuda.synchronize()
    return float(2 * PRODUCT**3 * PRODUCTS / (begin.elapsed_time(end) / 1e3))


def pretraining(source: Item, options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Done]]:
    """What each contender does in one call."""
    stage = STAGE.model_copy(
        update={"batch_positions": options.positions, "micro_batches": options.micro_batches, "learning_rate": 1e-4}
    )
    contenders: dict[str, Callable[[], Done]] = {}
    for name, compiled in (("vigil", True), ("vigil-eager", False)):
        (folder / name).mkdir()
        made = Vigil(source, options.vocabulary, 1, folder / name, stage, SHAPE)
        if compiled:
            made.model.fuse()
        contenders[name] = made.work
    peer = hugging_face.Pretraining(SHAPE, options.vocabulary, "sdpa", "cuda")
    for name, width, at_once in (("512", LONGEST, 128), ("dynamic", None, 32)):
        made_batches = hugging_face.padded_batches(source, options.vocabulary, width, STAGE.masked, 1, at_once)
        on_device = [batch.to("cuda") for batch in made_batches[:BATCHES]]
        contenders[f"hugging-face-{name}"] = HuggingFace(peer, on_device, 1, 1).work
    return contenders


def scoring(source: Item, model: MedBert, vocabulary: int) -> dict[str, Callable[[], Done]]:
    """What each contender does in one call; tokens count patients here."""
    peer = hugging_face.Scoring(SHAPE, vocabulary, "sdpa", OUTCOMES, "cuda")
    contenders: dict[str, Callable[[], Done]] = {"vigil": lambda: Done(len(risks_of(model, source)))}
    for name, width in (("512", LONGEST), ("dynamic", None)):
        made = hugging_face.padded_batches(source, vocabulary, width, 0.0, 1, 128)
        batches = cycle([batch.to("cuda") for batch in made[:BATCHES]])
        contenders[f"hugging-face-{name}"] = lambda b=batches: Done(  # type: ignore[misc]
            sum(len(peer.risks(batch)) for batch in islice(b, 2))
        )
    return contenders


def least_spearman(model: MedBert, source: Item) -> float:
    """bf16 packed, as the night scores, against fp32."""
    from scipy.stats import spearmanr

    half = risks_of(model, source)
    with patch("ml.training.inference.autocast", lambda where: nullcontext()):
        single = risks_of(model, source)
    return min(float(spearmanr(single[:, k], half[:, k]).statistic) for k in range(OUTCOMES))


def interleaved(contenders: dict[str, Callable[[], Done]], rounds: int) -> tuple[dict[str, list[float]], float, float]:
    """Rates of all contenders by round; the median FLOP per second of the first, and of the matrix product."""
    for name, work in contenders.items():  # the peers' kernels are made anew for each width
        for _ in range(4 if name.startswith("vigil") else BATCHES):
            work()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    flop, limits = [], []
    for _ in range(rounds):
        limits.append(limit())
        for name, work in contenders.items():
            rate, done = timed(work)
            rates[name].append(rate)
            if name == next(iter(contenders)):
                flop.append(done)
    return rates, statistics.median(flop), statistics.median(limits)


def table(rates: dict[str, list[float]], unit: str) -> dict[str, float]:
    """Print it; the medians."""
    print(f"\n{'':24}{unit:>14}{'lowest':>14}{'highest':>14}")
    for name, found in rates.items():
        print(f"{name:24}{statistics.median(found):14,.0f}{min(found):14,.0f}{max(found):14,.0f}", flush=True)
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--positions", type=int, default=32_768, help="of a micro-batch, padding included")
    parser.add_argument("--micro-batches", type=int, default=4, help="of an update")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that torch can use: nothing is measured")
        return
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as directory:
        only_settings(home=directory, threads=8)
        source = make_people(PEOPLE, options.vocabulary, seed=1)
        contenders = pretraining(source, options, Path(directory))
        rates, flop, most = interleaved(contenders, options.rounds)
        card = torch.cuda.get_device_name()
        print(
            f"{card}; torch {torch.__version__}; medians of {options.rounds} rounds; vocabulary {options.vocabulary:,}"
        )
        print(f"matrix product: {most / 1e12:.0f} TFLOP/s; vigil: {flop / 1e12:.0f} TFLOP/s on real tokens")
        learnt = table(rates, "tokens/s")
        memory = torch.cuda.max_memory_allocated() / 2**30
        del contenders
        model = vigil_model(options.vocabulary, SHAPE, OUTCOMES).cuda()
        found, _, _ = interleaved(scoring(source, model, options.vocabulary), options.rounds)
        scored = table(found, "patients/s")
        spearman = least_spearman(model, source)
    last = {
        "mfu": f"{flop / DENSE_BF16:.3f}",
        "of_limit": f"{flop / most:.3f}",
        "ratio": f"{learnt['vigil'] / learnt['hugging-face-512']:.1f}",
        "ratio_dynamic": f"{learnt['vigil'] / learnt['hugging-face-dynamic']:.1f}",
        "eager": f"{learnt['vigil-eager'] / learnt['vigil']:.2f}",
        "tokens_per_second": f"{learnt['vigil']:.0f}",
        "scoring_ratio": f"{scored['vigil'] / scored['hugging-face-512']:.1f}",
        "scoring_ratio_dynamic": f"{scored['vigil'] / scored['hugging-face-dynamic']:.1f}",
        "patients_per_second": f"{scored['vigil']:.0f}",
        "spearman": f"{spearman:.5f}",
        "memory_gib": f"{memory:.1f}",
        "peer": "hugging-face-bf16",
    }
    print("\n" + " ".join(f"{name}={number}" for name, number in last.items()))


if __name__ == "__main__":
    main()
