"""Small models of every kind, and batches to put in."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from ml.models.config import MedBertConfig
from ml.models.medbert import Inputs, MedBert, new_model
from ml.sequences.vocabulary import EMPTY, MASK, SPECIALS, grow

VOCABULARY = grow(EMPTY, {f"ICD10CM//I{i}.{j}": 9 for i in range(10, 30) for j in range(3)}, {})
OUTCOMES = ["heart failure", "stroke"]
OUTCOME_CODES = [[VOCABULARY.ids["ICD10CM//I10.1"], VOCABULARY.ids["ICD10CM//I10.2"]], [VOCABULARY.ids["ICD10CM//I20"]]]

CODE_HEAD = {"age_powers": False, "linear_path": False}
#: One switch at a time away from the default; together they take every value of every switch.
SWITCHED: dict[str, dict[str, Any]] = {
    "default": {},
    "post norm": {"norm": "post"},
    "no category": {"category_codes": False},
    "no visit": {"visit": "none"},
    "alternating": {"visit": "alternating"},
    "serialization": {"serialization": True, "serials": 6},
    "no age": {"age": "none", "time": "none"},
    "age table": {"age": "table"},
    "absolute time": {"time": "absolute"},
    "core-behrt scales": {"time": "absolute", "scales": "core_behrt"},
    "days by core-behrt weights": {"scales": "core_behrt"},
    "learned": {"position": "learned"},
    "visit sinusoids": {"position": "visit"},
    "rope": {"position": "rope"},
    "swiglu": {"feedforward_kind": "swiglu"},
    "core-behrt swiglu": {"feedforward_kind": "swiglu_core_behrt"},
    "untied": {"tied": False},
    **{kind: {"pooling": kind} for kind in ("first", "mean", "max", "sum", "attention", "bigru", "first_mean")},
    "plain binary": CODE_HEAD,
    "sum head": {"head": "sum", "pooling": "mean", **CODE_HEAD},
    "sum head by attention": {"head": "sum", "pooling": "attention", **CODE_HEAD},
    "mask head": {"head": "mask", "next_visit": True, **CODE_HEAD},
    "long stays": {"long_stay_head": True},
}


def config(outcomes: int = 2, **switches: Any) -> MedBertConfig:
    values = {
        "vocab_size": VOCABULARY.size, "hidden": 32, "layers": 2, "heads": 2, "feedforward": 48, "longest": 64,
        "outcomes": OUTCOMES[:outcomes], "horizons": [365] * outcomes, "outcome_codes": OUTCOME_CODES[:outcomes],
        "vocabulary_digest": VOCABULARY.digest, **switches,
    }  # fmt: skip
    return MedBertConfig(**values)


def model(outcomes: int = 2, **switches: Any) -> MedBert:
    return shaken(config(outcomes, **switches))


def shaken(wanted: MedBertConfig) -> MedBert:
    """A model away from its initial weights, so that no part of it is 0."""
    torch.manual_seed(0)
    parents = torch.zeros(wanted.vocab_size, dtype=torch.int64)
    parents[: VOCABULARY.size] = torch.from_numpy(VOCABULARY.parents).long()[: wanted.vocab_size]
    made = new_model(wanted, parents).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def inputs(lengths: list[int], width: int, seed: int = 0) -> Inputs:
    """Random sequences that end on [MASK], as a form with next_visit has them."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), width)
    real = np.arange(width)[None, :] < np.array(lengths)[:, None]
    arrays = {
        "tokens": rng.integers(len(SPECIALS), VOCABULARY.size, shape),
        "ages": rng.integers(0, 30_000, shape),
        "days": rng.integers(0, 3000, shape),
        "visits": np.sort(rng.integers(0, 90, shape)),
        "serial": rng.integers(0, 9, shape),
    }
    arrays["tokens"][np.arange(len(lengths)), np.array(lengths) - 1] = MASK
    tensors = {name: torch.from_numpy(np.where(real, array, 0)).long() for name, array in arrays.items()}
    now = torch.from_numpy(rng.integers(17_000, 20_000, len(lengths)))
    return Inputs(**tensors, lengths=torch.tensor(lengths), now=now)


def row(batch: Inputs, i: int, width: int) -> Inputs:
    """One sequence of a batch, alone and with less padding."""
    tensors = {field.name: getattr(batch, field.name)[i : i + 1] for field in fields(batch) if field.name != "total"}
    return Inputs(**{name: t[:, :width] if t.ndim == 2 else t for name, t in tensors.items()})


def with_other(batch: Inputs, i: int, seed: int) -> Inputs:
    """The batch with another sequence of the same length in one place."""
    other = inputs(batch.lengths.tolist(), batch.tokens.shape[1], seed)
    changed = {f.name: getattr(batch, f.name).clone() for f in fields(batch) if f.name != "total"}
    for name, tensor in changed.items():
        tensor[i] = getattr(other, name)[i]
    return replace(batch, **changed)
