"""From the cells of the ladder to its tables and picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.results import ORACLE
from ml.experiments.cells import Outcome
from ml.experiments.ladder import BASE, BASELINES, DATA, FINAL, LadderBench, LadderPlan, RungCell
from ml.experiments.pictures import rungs
from ml.experiments.statistics import Resampled, adjusted, one_sided, over_draws, over_repeats, stars
from ml.experiments.tables import Results, Table, Value, model_label

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rung:
    """What one model reached.

    Attributes:
        folds: ``[folds, tasks]`` AUROC of each fold's judged patients.
        held_out: ``[tasks, draws]`` AUROC of the folds' models together on held-out patients, the point estimate first.
    """

    folds: Floats
    held_out: Floats

    @property
    def macro(self) -> Floats:
        """``[draws]`` mean over the outcomes."""
        return np.asarray(self.held_out.mean(axis=0))


def results(plan: LadderPlan, bench: LadderBench, outcomes: dict[str, Outcome]) -> Results:
    """The ladder, the outcomes, and the picture; a model whose folds are not all done is left out."""
    found = _rungs(plan, bench, outcomes)
    marks = {model_label(model): float(found[model].macro[0]) for model in BASELINES if model in found}
    shown = [name for name in plan.presets() if name in found]
    panels = {
        "Folds (95 % over folds)": [(name, over_repeats(found[name].folds.mean(axis=1))) for name in shown],
        "Held out (95 % over patients)": [(name, over_draws(found[name].macro)) for name in shown],
    }
    judged = bench.judged
    facts = (
        f"Set-up {plan.digest[:12]}; {plan.hospital.identity}; {len(bench.tasks)} evaluable outcomes.",
        f"Folds over {len(np.unique(bench.pool.subjects)):,} patients, {len(bench.pool.subjects):,} rows; held out "
        f"{len(np.unique(judged.subjects)):,} patients, {len(judged.subjects):,} rows.",
        f"Each model: {bench.presets[BASE].pretraining.tokens:,} tokens of pretraining, "
        f"{bench.presets[BASE].finetuning.tokens:,} of fine-tuning per fold.",
    )
    tables = (_ladder(plan, found), *_outcomes(bench, found, outcomes))
    setup = {**asdict(plan), "digest": plan.digest, "tasks": bench.tasks}
    return Results(plan.experiment, plan.digest, facts, tables, rungs(panels, marks), setup)


def _rungs(plan: LadderPlan, bench: LadderBench, outcomes: dict[str, Outcome]) -> dict[str, Rung]:
    resampled, labels = Resampled.of(bench.judged.subjects, plan.seed), bench.judged.labels
    found = {}
    for model in [*BASELINES, *plan.presets()]:
        done = [outcomes.get(RungCell(model, fold).name) for fold in range(plan.folds)]
        if any(outcome is None for outcome in done):
            continue
        folds = np.array([[o.values["fold"][task] for task in bench.tasks] for o in done if o is not None])
        scores = np.mean([o.risks for o in done if o is not None and o.risks is not None], axis=0)
        draws = [resampled.auroc(labels[:, task], scores[:, task]) for task in range(len(bench.tasks))]
        found[model] = Rung(folds, np.stack(draws))
    return found


def _ladder(plan: LadderPlan, found: dict[str, Rung]) -> Table:
    """One row per model: folds, held-out patients, and the difference to the base."""
    names = [name for name in (*BASELINES, *plan.presets()) if name in found]
    tested = [name for name in names if name not in BASELINES and name != BASE] if BASE in found else []
    p = [one_sided(found[name].folds.mean(axis=1), found[BASE].folds.mean(axis=1)) for name in tested]
    marks = dict(zip(tested, adjusted(np.array(p)), strict=True)) if tested else {}
    rows: list[tuple[Value, ...]] = []
    for name in names:
        rung = found[name]
        against = over_draws(rung.macro - found[BASE].macro) if BASE in found and name != BASE else None
        rows.append(
            (
                model_label(name),
                over_repeats(rung.folds.mean(axis=1)),
                f"{marks[name]:.3f}{stars(marks[name])}" if name in marks else None,
                over_draws(rung.macro),
                against,
            )
        )
    title = (
        "The ladder: mean AUROC over the outcomes. Folds: mean and 95 % interval over the folds, p of the paper's "
        "one-sided test against BEHRT, adjusted by Benjamini and Hochberg. Held out: the folds' models together, 95 % "
        "interval over patients, and the paired difference to BEHRT."
    )
    return Table("ladder", title, ("model", "folds", "p", "held out", "held out, to BEHRT"), tuple(rows), 4)


def _outcomes(bench: LadderBench, found: dict[str, Rung], outcomes: dict[str, Outcome]) -> tuple[Table, ...]:
    """One row per outcome, as the paper's table of 25."""
    if not {BASE, FINAL} <= set(found):
        return ()
    base, final = found[BASE], found[FINAL]
    p = adjusted(np.array([one_sided(final.folds[:, k], base.folds[:, k]) for k in range(len(bench.tasks))]))
    oracle = outcomes[RungCell(ORACLE, 0).name].values["held_out"] if RungCell(ORACLE, 0).name in outcomes else {}
    rows: list[tuple[Value, ...]] = []
    for k, task in enumerate(bench.tasks):
        means = [_spread(found[name].folds[:, k]) if name in found else None for name in (BASE, DATA, FINAL)]
        difference = float((final.folds[:, k] - base.folds[:, k]).mean())
        held = [over_draws(found[name].held_out[k]) if name in found else None for name in (FINAL, *BASELINES)]
        rows.append((task.replace("_", " "), *means, difference, f"{p[k]:.3f}{stars(p[k])}", *held, oracle.get(task)))
    title = (
        "By outcome: AUROC over the folds (mean ± SD), CORE-BEHRT less BEHRT and the adjusted p of the paper's test; "
        "then on held-out patients CORE-BEHRT, the baselines and, where it knows the outcome, the oracle."
    )
    columns = ("outcome", "BEHRT", "+ data", "CORE-BEHRT", "difference", "p")
    held_out = ("held out: CORE-BEHRT", "logistic regression", "LightGBM", "oracle")
    return (Table("outcomes", title, (*columns, *held_out), tuple(rows), 3),)


def _spread(values: Floats) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"
