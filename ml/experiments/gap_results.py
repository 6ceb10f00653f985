"""From the cells of the gap to the oracle to its table and picture."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.results import LIGHTGBM, ORACLE
from ml.experiments.cells import Outcome
from ml.experiments.gap import BASELINES, GapBench, GapPlan, scores_of
from ml.experiments.pictures import rungs
from ml.experiments.statistics import Resampled, over_draws
from ml.experiments.tables import Results, Table, Value, model_label, people

Draws = NDArray[np.float64]
AIM = 0.03  # of the macro AUROC below the oracle's


def results(plan: GapPlan, bench: GapBench, outcomes: dict[str, Outcome]) -> Results:
    """The macro AUROC of every model, the outcomes one by one, and the picture."""
    judged, resampled = bench.judged, Resampled.of(bench.judged.subjects, plan.seed)
    found: dict[str, Draws] = {}
    for model in (*plan.presets, *BASELINES, ORACLE):
        scores = scores_of(outcomes, plan, model)
        if scores is not None:
            draws = [resampled.auroc(judged.labels[:, k], scores[:, k]) for k in range(len(bench.tasks))]
            found[model] = np.stack(draws)
    macro = {model: draws.mean(axis=0) for model, draws in found.items()}
    facts = (
        f"Set-up {plan.digest[:12]}; {plan.hospital.identity}.",
        f"{len(bench.tasks)} outcomes with at least {plan.least_events} events among held-out patients; "
        f"{len(np.unique(judged.subjects)):,} held-out patients, {len(judged.subjects):,} rows; learned from "
        f"{len(np.unique(bench.training.subjects)):,} patients, {len(bench.training.subjects):,} rows.",
        f"The aim: within {AIM} of the oracle's macro AUROC, and not below LightGBM beyond the paired interval.",
    )
    panels = {"Macro AUROC (95 % over patients)": [(model_label(m), over_draws(draws)) for m, draws in macro.items()]}
    setup = {**asdict(plan), "digest": plan.digest, "tasks": bench.tasks}
    tables = (_macro(macro), _outcomes(bench, found, [m for m in found if m not in (*BASELINES, ORACLE)]))
    return Results(plan.experiment, plan.digest, facts, tables, rungs(panels, {}), setup)


def _macro(macro: dict[str, Draws]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for model, draws in macro.items():
        less = [over_draws(draws - macro[o]) if o in macro and o != model else None for o in (ORACLE, LIGHTGBM)]
        rows.append((model_label(model), over_draws(draws), *less))
    title = "Mean AUROC over the outcomes and 95 % interval over patients; differences are paired."
    return Table("macro", title, ("model", "macro AUROC", "less the oracle's", "less LightGBM's"), tuple(rows), 4)


def _outcomes(bench: GapBench, found: dict[str, Draws], models: list[str]) -> Table:
    shown = [model for model in (*models, *BASELINES, ORACLE) if model in found]
    best = max(models, key=lambda model: found[model].mean(axis=0)[0]) if models else None
    rows: list[tuple[Value, ...]] = []
    for k, task in enumerate(bench.tasks):
        less = [over_draws(found[best][k] - found[o][k]) if best and o in found else None for o in (ORACLE, LIGHTGBM)]
        events = int(np.nansum(bench.judged.labels[:, k]))
        values = [float(found[model][k, 0]) for model in shown]
        rows.append((task.replace("_", " "), people(events), *values, *less))
    title = f"By outcome: AUROC, and the paired differences of {model_label(best) if best else 'the best model'}."
    columns = ("outcome", "events", *map(model_label, shown), "less the oracle's", "less LightGBM's")
    return Table("outcomes", title, columns, tuple(rows), 3)
