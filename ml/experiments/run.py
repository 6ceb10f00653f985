"""An experiment from its plan to its results, each finished part kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ml.common.files import write_json
from ml.experiments.few_shot import Bench, Plan
from ml.experiments.gap import GapBench, GapPlan
from ml.experiments.hospital import hospital
from ml.experiments.ladder import LadderBench, LadderPlan
from ml.experiments.plans import (
    EXPECTED,
    Scale,
    core_behrt_ladder,
    next_visit_head,
    oracle_gap,
    presets,
    pretraining_gain,
)
from ml.experiments.side_by_side import SideBench, SidePlan
from ml.experiments.tables import Results
from ml.settings import get_settings

Name = Literal["core-behrt-ladder", "next-visit-head", "pretraining-gain", "presets", "oracle-gap"]
Say = Callable[[str], None]
HEAD_PAIRS = (("mask", "binary"), ("sum", "binary"), ("mask", "logistic_regression"), ("mask", "lightgbm"))
GAIN_PAIRS = (("pretrained", "from scratch"), ("pretrained", "logistic_regression"), ("pretrained", "lightgbm"))


def run(name: Name, scale: Scale, say: Say, train: bool = True) -> tuple[Results, Path]:
    """Do what of an experiment is not done yet; the results, and the folder that holds them.

    Args:
        say: takes lines for people.
        train: False takes what is finished; nothing is trained.

    Raises:
        VigilError: the hospital of that scale has no outcome to judge, or a training fails.
    """
    plan = plan_of(name, scale)
    root = get_settings().data_dir / "experiments"
    folder = root / name / plan.digest[:12]
    write_json(folder / "plan.json", {"scale": scale, "digest": plan.digest})
    say(f"{name}, scale {scale}, set-up {plan.digest[:12]}: {plan.hospital.identity}")
    if train and (name, scale) in EXPECTED:
        say(f"expected on two free cores: {EXPECTED[name, scale]} from nothing")
    with hospital(plan.hospital) as place, _quiet():
        if isinstance(plan, LadderPlan):
            from ml.experiments import ladder_results

            ladder = LadderBench(plan, place, root)
            found = ladder_results.results(plan, ladder, ladder.run(folder, say, train))
        elif isinstance(plan, GapPlan):
            from ml.experiments import gap_results

            gap = GapBench(plan, place, root)
            found = gap_results.results(plan, gap, gap.run(folder, say, train))
        elif isinstance(plan, SidePlan):
            from ml.experiments import side_results

            side = SideBench(plan, place, root)
            found = side_results.results(plan, side, side.run(folder, say, train))
        else:
            from ml.experiments import few_shot_results

            bench = Bench(plan, place, root)
            pairs = HEAD_PAIRS if name == "next-visit-head" else GAIN_PAIRS
            found = few_shot_results.results(plan, bench, bench.run(folder, say, train), pairs)
    found.save(folder)
    return found, folder


def plan_of(name: Name, scale: Scale) -> Plan | LadderPlan | SidePlan | GapPlan:
    """The plan of an experiment."""
    plans: dict[Name, Callable[[Scale], Plan | LadderPlan | SidePlan | GapPlan]] = {
        "core-behrt-ladder": core_behrt_ladder,
        "next-visit-head": next_visit_head,
        "pretraining-gain": pretraining_gain,
        "presets": presets,
        "oracle-gap": oracle_gap,
    }
    return plans[name](scale)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hundreds of trainings say nothing each; a pretraining's progress is in ``data/progress``."""
    loggers = [logging.getLogger(f"ml.{name}") for name in ("training", "evaluation", "common.progress")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
