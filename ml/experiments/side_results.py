"""From the cells of the presets to their table and picture."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.results import Estimate
from ml.experiments.cells import Outcome
from ml.experiments.pictures import rungs
from ml.experiments.side_by_side import PRESETS, SideBench, SideCell, SidePlan, inner_parameters, scores_of
from ml.experiments.statistics import Resampled, over_draws
from ml.experiments.tables import Results, Table, Value


def results(plan: SidePlan, bench: SideBench, outcomes: dict[str, Outcome]) -> Results:
    """The table; a preset without a finished training is left out."""
    judged = bench.judged
    resampled = Resampled.of(judged.subjects, plan.seed)
    shown = [preset for preset in PRESETS if scores_of(outcomes, plan, preset)]
    means = {preset: _mean(plan, bench, outcomes, preset, resampled) for preset in shown}
    rows = [_row(plan, outcomes, preset, over_draws(means[preset]), means) for preset in shown]
    facts = (
        f"Set-up {plan.digest[:12]}; {plan.hospital.identity}; {len(bench.tasks)} evaluable outcomes; "
        f"{len(np.unique(judged.subjects)):,} held-out patients, {len(judged.subjects):,} rows.",
        "Every preset spends the same: 6 FLOP per parameter outside embeddings, decoder and heads, and per token.",
        "AUROC: mean over the outcomes, of each fine-tuning, then over the fine-tunings; intervals over patients.",
    )
    title = (
        "Presets after equal compute. Loss: cross-entropy (nats) of hidden codes of held-out patients, and of the "
        "codes' frequencies alone; each preset hides codes of its own form: compare a loss with its neighbour only."
    )
    columns = (
        "preset", "parameters", "of them per token", "pretraining tokens", "fine-tuning tokens", "loss", "frequencies",
        "AUROC", "less night's", "fine-tunings",
    )  # fmt: skip
    panels = {"Held out (95 % over patients)": [(preset, over_draws(means[preset])) for preset in shown]}
    setup = {**asdict(plan), "digest": plan.digest, "tasks": bench.tasks}
    table = Table("presets", title, columns, tuple(rows), 3)
    return Results(plan.experiment, plan.digest, facts, (table,), rungs(panels, {}), setup)


def _mean(
    plan: SidePlan,
    bench: SideBench,
    outcomes: dict[str, Outcome],
    preset: str,
    resampled: Resampled,
) -> NDArray[np.float64]:
    """``[draws]`` macro AUROC, the point estimate first."""
    found = [
        resampled.auroc(bench.judged.labels[:, task], scores[:, task])
        for scores in scores_of(outcomes, plan, preset)
        for task in range(len(bench.tasks))
    ]
    return np.asarray(np.mean(found, axis=0))


def _row(
    plan: SidePlan,
    outcomes: dict[str, Outcome],
    preset: str,
    auroc: Estimate,
    means: dict[str, NDArray[np.float64]],
) -> tuple[Value, ...]:
    first = outcomes.get(SideCell(preset, 0).name)
    values = first.values if first else {}
    made = plan.resolved[preset]
    against = over_draws(means[preset] - means["night"]) if "night" in means and preset != "night" else None
    return (
        preset,
        values.get("parameters"),
        inner_parameters(made),
        made.pretraining.tokens,
        made.finetuning.tokens,
        values.get("loss"),
        values.get("frequencies"),
        auroc,
        against,
        len(scores_of(outcomes, plan, preset)),
    )
