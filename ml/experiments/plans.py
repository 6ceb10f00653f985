"""The experiments at three scales: what is trained on which hospital, in full. One setting, the scale.

``tiny`` is for tests, in seconds. ``small`` is for two cores. ``full`` is for a GPU and was not run yet.
"""

from __future__ import annotations

from typing import Any, Literal

from ml.demo.generate import Order
from ml.experiments.few_shot import Plan, Variant
from ml.experiments.gap import GapPlan
from ml.experiments.ladder import LadderPlan
from ml.experiments.learning import Changes
from ml.experiments.side_by_side import SidePlan

Scale = Literal["tiny", "small", "full"]
SEED = 20_240_101
EXPECTED = {  # for people, on two free cores; estimated from the CPU seconds of single cells
    ("core-behrt-ladder", "small"): "about 75 minutes",
    ("next-visit-head", "small"): "about 45 minutes",
    ("pretraining-gain", "small"): "about 30 minutes",
    ("oracle-gap", "small"): "about an hour",
}
TINY_HOSPITAL = Order(1_500, "pancreas", 7)  # all three share it
PANCREAS = "pancreatic_cancer_45_plus"
GAIN_TASKS = ("heart_failure", "stroke", "type_2_diabetes")

SUM: Changes = {"model": {"head": "sum"}}
MASK: Changes = {"model": {"head": "mask"}, "form": {"next_visit": True}}
HEADS = (
    Variant("binary", {}),
    Variant("sum", SUM),
    Variant("mask", MASK),
    Variant("sum, zero-shot", SUM, "zero-shot"),
    Variant("mask, zero-shot", MASK, "zero-shot"),
)
STARTS = (Variant("pretrained", {}), Variant("from scratch", {}, "random"))


def _changes(shape: dict[str, Any], longest: int, pretraining: dict[str, Any], finetuning: dict[str, Any]) -> Changes:
    return {"model": shape, "longest": longest, "pretraining": pretraining, "finetuning": finetuning}


TINY = _changes(
    {"hidden": 16, "layers": 1, "heads": 2, "feedforward": 16, "visits": 16},
    16,
    {"tokens": 6_000, "max_epochs": 1.0, "batch_positions": 4_096, "micro_batches": 1},
    {"tokens": 6_000, "max_epochs": 2.0, "batch_positions": 4_096, "micro_batches": 1, "evaluations": 1},
)

# Against Med-BERT's recipe: smaller; 20 % of the codes masked in place of one code per patient and no second objective,
# for its 45 million steps are out of reach; rates for short trainings.
FEW_SHOT_SMALL = _changes(
    {"hidden": 96, "layers": 3, "heads": 4, "feedforward": 64, "visits": 64},
    64,
    {
        "tokens": 5_000_000, "max_epochs": 100.0, "batch_positions": 2_048, "micro_batches": 2,
        "learning_rate": 1.0e-3, "masked": 0.20, "one_code": False, "long_stay": 0.0,
    },
    {
        "tokens": 150_000, "max_epochs": 40.0, "batch_positions": 1_024, "micro_batches": 2,
        "learning_rate": 3.0e-4, "evaluations": 8, "patience": 3, "negatives": 0.25,
    },
)  # fmt: skip
FEW_SHOT_FULL = _changes(
    {},
    512,
    {
        "tokens": 1_000_000_000, "max_epochs": 200.0, "batch_positions": 16_384, "micro_batches": 2,
        "learning_rate": 5.0e-4, "masked": 0.20, "one_code": False, "long_stay": 0.0,
    },
    {"tokens": 5_000_000, "max_epochs": 40.0, "learning_rate": 1.0e-4, "evaluations": 20, "negatives": 1.0},
)  # fmt: skip

LADDER_SMALL = _changes(
    {"hidden": 96, "layers": 3, "heads": 4, "feedforward": 128, "visits": 64},
    64,
    {
        "tokens": 1_500_000, "max_epochs": 100.0, "batch_positions": 2_048, "micro_batches": 2,
        "learning_rate": 1.0e-3, "one_code": False,
    },
    {
        "tokens": 400_000, "max_epochs": 20.0, "batch_positions": 2_048, "micro_batches": 2,
        "learning_rate": 3.0e-4, "evaluations": 4, "negatives": 0.25,
    },
)  # fmt: skip
LADDER_FULL = _changes(
    {"hidden": 192, "layers": 6, "heads": 6, "feedforward": 64, "visits": 512},
    512,
    {"tokens": 500_000_000, "max_epochs": 150.0, "learning_rate": 5.0e-4},
    {"tokens": 50_000_000, "max_epochs": 20.0, "learning_rate": 5.0e-5, "evaluations": 20, "negatives": 1.0},
)
GAP_SMALL: Changes = {
    "pretraining": {"tokens": 5_000_000},
    "finetuning": {"tokens": 5_000_000, "evaluations": 8},
}
NIGHT: Changes = {"pretraining": {"learning_rate": 2.0e-3}}
SIZES = (10, 20, 50, 100, 200, 500, 1_000)
MORE_SIZES = (20, 50, 100, 200, 500, 1_000)


def next_visit_head(scale: Scale) -> Plan:
    """Heads `binary`, `sum` and `mask` on pancreatic cancer, by labelled patients (He 2025, arXiv 2501.02044)."""
    name, tasks = "next-visit-head", (PANCREAS,)
    if scale == "tiny":
        return Plan(name, TINY_HOSPITAL, tasks, "med-bert", TINY, HEADS, (10, 20), 2, 1, controls=3)
    if scale == "small":
        hospital = Order(20_000, "pancreas", SEED)
        return Plan(name, hospital, tasks, "med-bert", FEW_SHOT_SMALL, HEADS, SIZES, 10, 3)
    return Plan(name, Order(500_000, "pancreas", SEED), tasks, "med-bert", FEW_SHOT_FULL, HEADS, SIZES, 10, 10)


def pretraining_gain(scale: Scale) -> Plan:
    """With and without pretraining, by labelled patients (Rasmy 2021, arXiv 2005.12833)."""
    name = "pretraining-gain"
    if scale == "tiny":
        tasks = ("type_2_diabetes",)
        return Plan(name, TINY_HOSPITAL, tasks, "med-bert", TINY, STARTS, (10, 20), 2, 1, controls=3)
    if scale == "small":
        hospital = Order(20_000, "general", SEED)
        return Plan(name, hospital, GAIN_TASKS, "med-bert", FEW_SHOT_SMALL, STARTS, MORE_SIZES, 5, 3)
    hospital = Order(500_000, "general", SEED)
    return Plan(name, hospital, GAIN_TASKS, "med-bert", FEW_SHOT_FULL, STARTS, (*SIZES, 2_000, 5_000), 10, 10)


def core_behrt_ladder(scale: Scale) -> LadderPlan:
    """The increments from BEHRT to CORE-BEHRT (Odgaard 2024, arXiv 2404.15201)."""
    if scale == "tiny":
        return LadderPlan(TINY_HOSPITAL, TINY, {}, folds=3)
    if scale == "small":
        return LadderPlan(Order(20_000, "general", SEED), LADDER_SMALL, NIGHT)
    return LadderPlan(Order(500_000, "general", SEED), LADDER_FULL, NIGHT)


def presets(scale: Scale) -> SidePlan:
    """The presets of `ml.models` after equal compute."""
    if scale == "tiny":
        shape = {"hidden": 24, "layers": 1, "heads": 2, "feedforward": 32, "visits": 32}
        return SidePlan(TINY_HOSPITAL, 20_000, 10_000, {"model": shape, "longest": 32}, trainings=1)
    if scale == "small":
        return SidePlan(Order(20_000, "general", SEED), 2_400_000, 900_000, {})
    return SidePlan(Order(500_000, "general", SEED), 1_000_000_000, 200_000_000, {})


def oracle_gap(scale: Scale) -> GapPlan:
    """The night's model, given what a larger hospital has, against the oracle."""
    if scale == "tiny":
        gru: Changes = {**TINY, "model": {**TINY["model"], "layers": 0}}
        return GapPlan(TINY_HOSPITAL, (("night", "night", TINY), ("GRU", "gru", gru)), least_events=10, trainings=1)
    variants = (("night", "night", GAP_SMALL), ("GRU", "gru", GAP_SMALL))
    if scale == "small":
        return GapPlan(Order(100_000, "general", SEED), variants)
    return GapPlan(Order(500_000, "general", SEED), (*variants, ("vigil", "vigil", {})))
