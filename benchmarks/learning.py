"""What is learnt for the same tokens: Vigil's engine against the same model trained the padded way in fp32.

The engine's batches are of sequences of like length, its decoder works at hidden codes only, its micro-batches run
on threads, and bf16 is used where the device has it. The padded way has none of these: sequences in random order,
padded to the longest of the batch, every position decoded, fp32, one batch of as many tokens per update. Model,
initial weights, optimiser, schedule and number of tokens are the same. Hugging Face's BertForMaskedLM, trained the
padded way too, stands beside them for orientation: another model.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks import hugging_face
from benchmarks.pretraining import PEOPLE, SHAPE, STAGE, Vigil, vigil_model
from benchmarks.sick_people import make_people
from ml.models.inputs import Inputs, send
from ml.models.medbert import MedBert
from ml.sequences.batches import Batch, Item, gather, plan
from ml.training.masking import Masked, mask_codes
from ml.training.optimisation import optimiser, step
from ml.training.precision import device, has_fast_bf16

TOKENS = 300_000
HELD_OUT = 2_000  # people
PER_BATCH = 90  # sequences: as many tokens as a step of the engine has

Logits = Callable[[Batch, Masked], torch.Tensor]


def compare_losses(vocabulary: int, seeds: int, folder: Path) -> None:
    """Train each way on each seed, and print held-out losses; on the GPU where there is one."""
    source, held_out = make_people(PEOPLE, vocabulary, seed=1), make_people(HELD_OUT, vocabulary, seed=2)
    found: dict[str, list[float]] = {"vigil": [], "padded": [], "hugging-face": []}
    for seed in range(1, seeds + 1):
        ways = {
            "vigil": _vigil(source, vocabulary, seed, folder / str(seed)),
            "padded": _padded(source, vocabulary, seed),
            "hugging-face": _hugging_face(source, vocabulary, seed),
        }
        for name, logits in ways.items():
            found[name].append(held_out_loss(logits, held_out, vocabulary))
        print(f"seed {seed}: " + ", ".join(f"{name} {losses[-1]:.4f}" for name, losses in found.items()), flush=True)
    pairs = [vigil - padded for vigil, padded in zip(found["vigil"], found["padded"], strict=True)]
    noise = statistics.stdev(found["padded"]) if seeds > 1 else float("nan")
    half = "bf16" if has_fast_bf16(device()) else "fp32"
    print(
        f"\nloss={statistics.mean(found['vigil']):.4f} peer=padded-fp32 "
        f"loss_difference={statistics.mean(pairs):+.4f} noise={noise:.4f} "
        f"hugging_face_loss={statistics.mean(found['hugging-face']):.4f} tokens={TOKENS} seeds={seeds} "
        f"device={device().type} precision={half}"
    )


def held_out_loss(logits: Logits, source: Item, vocabulary: int) -> float:
    """Mean cross-entropy (nats) of hidden codes in fp32, the same ones for every model."""
    rng, total, hidden = np.random.default_rng(7), 0.0, 0
    with torch.inference_mode():
        for items in plan(source.lengths(hugging_face.FORM), 4_096):
            batch = gather(source, items, hugging_face.FORM)
            masked = mask_codes(batch, STAGE.masked, vocabulary, rng)
            total += float(functional.cross_entropy(logits(batch, masked).float(), targets_of(masked), reduction="sum"))
            hidden += masked.targets.size
    return total / hidden


def targets_of(masked: Masked) -> torch.Tensor:
    return send(masked.targets, device())


def _vigil(source: Item, vocabulary: int, seed: int, folder: Path) -> Logits:
    torch.set_num_threads(1)
    folder.mkdir()
    trained = Vigil(source, vocabulary, seed, folder, STAGE.model_copy(update={"tokens": TOKENS}))
    trained.engine.run()
    return _of(trained.model)


def _of(model: MedBert) -> Logits:
    model.eval()

    def logits(batch: Batch, masked: Masked) -> torch.Tensor:
        return model.masked_codes(Inputs.of(batch, device(), masked.tokens), send(masked.positions, device()))

    return logits


def _random_batches(source: Item, vocabulary: int, seed: int) -> list[tuple[Batch, Masked, float]]:
    """Batches until the tokens are spent, and the share of the budget after each."""
    rng, seen, made = np.random.default_rng(seed), 0, []
    order = rng.permutation(source.row.size)
    for start in range(0, order.size, PER_BATCH):
        batch = gather(source, order[start : start + PER_BATCH], hugging_face.FORM)
        seen += int(batch.lengths.sum())
        made.append((batch, mask_codes(batch, STAGE.masked, vocabulary, rng), min(seen / TOKENS, 1.0)))
        if seen >= TOKENS:
            return made
    raise ValueError("too few people")


def _padded(source: Item, vocabulary: int, seed: int) -> Logits:
    torch.set_num_threads(2)
    model = vigil_model(vocabulary, seed).to(device()).train()
    optimizer = optimiser(model, STAGE)
    for batch, masked, share in _random_batches(source, vocabulary, seed):
        inputs = Inputs.of(batch, device(), masked.tokens)
        everywhere = model.decode(model.encode(inputs).flatten(0, 1)).view(*masked.tokens.shape, -1)
        loss = functional.cross_entropy(everywhere[send(masked.positions, device())], targets_of(masked))
        optimizer.zero_grad()
        loss.backward()
        step(model, optimizer, float(loss), STAGE, share)
    return _of(model)


def _hugging_face(source: Item, vocabulary: int, seed: int) -> Logits:
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    model = hugging_face.bert("BertForMaskedLM", SHAPE, vocabulary, "sdpa").to(device()).train()
    optimizer = optimiser(model, STAGE)
    run = _bert_logits(model)
    for batch, masked, share in _random_batches(source, vocabulary, seed):
        loss = functional.cross_entropy(run(batch, masked), targets_of(masked))
        optimizer.zero_grad()
        loss.backward()
        step(model, optimizer, float(loss), STAGE, share)
    model.eval()
    return run


def _bert_logits(model: torch.nn.Module) -> Logits:
    def logits(batch: Batch, masked: Masked) -> torch.Tensor:
        mask = torch.arange(batch.tokens.shape[1])[None, :] < torch.from_numpy(batch.lengths)[:, None]
        tokens = send(masked.tokens, device()).long()
        everywhere: torch.Tensor = model(input_ids=tokens, attention_mask=mask.to(device())).logits
        return everywhere[send(masked.positions, device())]

    return logits
