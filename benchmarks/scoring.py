"""Scoring patients: Vigil's inference against Hugging Face's BERT, padded to 512 and dynamically.

Run: python -m benchmarks.scoring [--threads 2] [--rounds 3] [--patients 2000] [--vocabulary 10000]

Hidden 192, 6 layers, 6 heads, feed-forward 768, 4 outcomes, read off the first token as BERT's classifier does;
sequences of `benchmarks.sick_people`: log-normal lengths of mean 76, at most 512; weights as they are drawn. Patients
per second of the clock, in interleaved rounds:
- vigil: `ml.training.inference.risks_of`, as the night scores: batches gathered within the clock, from sequences to
  calibrated risks of all outcomes in one pass;
- hugging-face-512: BertForSequenceClassification, 32 patients padded to 512, in inference mode;
- hugging-face-dynamic: the same, padded to the longest of each batch.
``spearman``: the least rank correlation, over the outcomes, of risks in bf16 with risks in fp32 on a model whose heads
tell patients apart, for 100 of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from benchmarks import hugging_face
from benchmarks.machine import Rate, median, only_settings, rate_of
from benchmarks.pretraining import SHAPE
from benchmarks.sick_people import LONGEST, make_people
from ml.models.config import MedBertConfig
from ml.models.medbert import Inputs, MedBert, new_model
from ml.sequences.batches import Item, gather
from ml.training.inference import risks_of

OUTCOMES = 4
PADDED_BATCHES, DYNAMIC_BATCHES = 2, 6  # per round
JUDGED = 100  # patients: bf16 may be slow on a CPU


def vigil_model(vocabulary: int, shape: dict[str, Any] = SHAPE, outcomes: int = OUTCOMES) -> MedBert:
    """Of the shape measured here, with heads whose logits spread like a trained model's."""
    torch.manual_seed(0)
    named: dict[str, Any] = {"outcomes": [f"outcome {n}" for n in range(outcomes)], "horizons": [365] * outcomes}
    config = MedBertConfig(vocab_size=vocabulary, longest=LONGEST, pooling="first", **shape, **named)
    config.calibration = [[1.0, 0.0]] * outcomes
    model = new_model(config, torch.zeros(vocabulary, dtype=torch.int64)).eval()
    with torch.no_grad():
        for parameter in (model.heads or model).parameters():
            parameter.mul_(20.0)
    return model


def first(source: Item, patients: int) -> Item:
    """The first of the sequences."""
    return replace(source, store=source.store[:patients], row=source.row[:patients])


def least_spearman(model: MedBert, source: Item) -> float:
    """bf16 against fp32, whatever the device thinks of bf16."""
    from scipy.stats import spearmanr

    batch = gather(source, np.arange(source.row.size), model.form)
    with torch.inference_mode():
        single = model.risks(Inputs.of(batch)).numpy()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.risks(Inputs.of(batch)).float().numpy()
    return min(float(spearmanr(single[:, k], half[:, k]).statistic) for k in range(OUTCOMES))


def compare(vocabulary: int, threads: int, rounds: int, patients: int) -> None:
    """Time all contenders in turn, and print."""
    source = first(make_people(max(patients, 2_000), vocabulary, seed=1), patients)
    model = vigil_model(vocabulary)
    made = {to: hugging_face.padded_batches(source, vocabulary, to, 0.0, seed=1) for to in (LONGEST, None)}
    peers = {name: hugging_face.Scoring(SHAPE, vocabulary, name, OUTCOMES) for name in hugging_face.ATTENTIONS}

    def vigil() -> float:
        torch.set_num_threads(1)
        return float(len(risks_of(model, source)))

    def hugging(peer: hugging_face.Scoring, batches: cycle[hugging_face.Padded], count: int) -> float:
        torch.set_num_threads(threads)
        return float(sum(len(peer.risks(batch)) for batch in islice(batches, count)))

    tried = {name: rate_of(lambda p=peer: hugging(p, cycle(made[LONGEST]), 1)).wall for name, peer in peers.items()}  # type: ignore[misc]
    attention = max(tried, key=lambda name: tried[name])
    peer = peers[attention]
    padded, dynamic = cycle(made[LONGEST]), cycle(made[None])
    contenders: dict[str, Callable[[], float]] = {
        "vigil": vigil,
        "hugging-face-512": lambda: hugging(peer, padded, PADDED_BATCHES),
        "hugging-face-dynamic": lambda: hugging(peer, dynamic, DYNAMIC_BATCHES),
    }
    for work in contenders.values():
        work()
    found: dict[str, list[Rate]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            found[name].append(rate_of(work))
    print(f"medians of {rounds} rounds; {threads} threads each; vocabulary {vocabulary:,}; baseline with {attention}\n")
    print(f"{'':24}{'patients/s':>12}{'lowest':>10}{'highest':>10}{'per cpu s':>11}")
    for name, rates in found.items():
        wall = [rate.wall for rate in rates]
        spread = f"{statistics.median(wall):12,.1f}{min(wall):10,.1f}{max(wall):10,.1f}"
        print(f"{name:24}{spread}{median(rates, 'cpu'):11,.1f}")
    ratio = {name: median(found["vigil"], "wall") / median(rates, "wall") for name, rates in found.items()}
    spearman = least_spearman(model, first(source, JUDGED))
    print(
        f"\nratio={ratio['hugging-face-512']:.1f} peer=hugging-face-512 "
        f"ratio_dynamic={ratio['hugging-face-dynamic']:.1f} "
        f"spearman={spearman:.5f} patients_per_second={median(found['vigil'], 'wall'):.0f} patients={patients}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of each contender")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--patients", type=int, default=2_000, help="scored by Vigil in a round")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as directory:
        only_settings(home=directory, threads=options.threads)
        compare(options.vocabulary, options.threads, options.rounds, options.patients)


if __name__ == "__main__":
    main()
