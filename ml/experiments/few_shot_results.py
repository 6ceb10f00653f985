"""From the cells of a few-shot plan to its tables and picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.results import ORACLE
from ml.experiments.cells import Outcome
from ml.experiments.few_shot import ALL, BASELINES, Bench, Plan
from ml.experiments.pictures import curves
from ml.experiments.statistics import Resampled, over_draws, over_repeats
from ml.experiments.tables import Results, Table, Value, model_label, people


@dataclass(frozen=True)
class Found:
    """AUROC of one model at one size, by repeat: in every bootstrap draw over patients, the point estimate first."""

    draws: dict[int, NDArray[np.float64]]

    @property
    def values(self) -> NDArray[np.float64]:
        """``[repeats]``."""
        return np.array([draws[0] for draws in self.draws.values()])

    def less(self, other: Found) -> NDArray[np.float64]:
        """``[repeats, draws]`` differences, of the repeats that both have."""
        both = [repeat for repeat in self.draws if repeat in other.draws]
        return np.array([self.draws[repeat] - other.draws[repeat] for repeat in both])


def results(plan: Plan, bench: Bench, outcomes: dict[str, Outcome], pairs: tuple[tuple[str, str], ...]) -> Results:
    """Tables of AUROC and of the paired differences ``pairs`` (better, worse), and the picture."""
    found = {task: _found(plan, bench, outcomes, task) for task in plan.tasks}
    models = [v.name for v in plan.variants if v.start != "zero-shot"] + list(BASELINES)
    sizes = [*plan.sizes, None]
    tables = []
    for task in plan.tasks:
        suffix = "" if len(plan.tasks) == 1 else f"-{task}"
        cells = found[task]
        rows = tuple(
            (
                _size(size),
                min(len(cells[m, size].draws) if (m, size) in cells else 0 for m in models),
                *(over_repeats(cells[m, size].values) if (m, size) in cells else None for m in models),
            )
            for size in sizes
        )
        title = f"{_words(task)}: AUROC by labelled patients; mean and 95 % interval over the repeats."
        tables.append(Table(f"auroc{suffix}", title, ("labelled", "repeats", *map(model_label, models)), rows))
        tables.append(_differences(task, suffix, sizes, cells, pairs))
        zero = [name for name in (ORACLE, *plan.unlabelled) if (name, 0) in cells]
        if zero:
            title = f"{_words(task)}: without any label; AUROC and 95 % interval over held-out patients."
            rows = tuple((model_label(name), over_draws(cells[name, 0].draws[0])) for name in zero)
            tables.append(Table(f"without-labels{suffix}", title, ("model", "AUROC"), rows))
    return Results(
        plan.experiment,
        plan.digest,
        _facts(plan, bench),
        tuple(tables),
        _picture(plan, found, models),
        {**asdict(plan), "digest": plan.digest},
    )


def _found(plan: Plan, bench: Bench, outcomes: dict[str, Outcome], task: str) -> dict[tuple[str, int | None], Found]:
    judged = bench.ground(task).judged
    resampled = Resampled.of(judged.subjects, plan.seed)
    found: dict[tuple[str, int | None], Found] = {}
    for cell in plan.cells():
        outcome = outcomes.get(cell.name)
        if cell.task == task and outcome is not None and outcome.risks is not None:
            group = found.setdefault((cell.model, cell.size), Found({}))
            group.draws[cell.repeat] = resampled.auroc(judged.labels[:, 0], outcome.risks[:, 0])
    return found


def _differences(
    task: str,
    suffix: str,
    sizes: list[int | None],
    cells: dict[tuple[str, int | None], Found],
    pairs: tuple[tuple[str, str], ...],
) -> Table:
    rows: list[tuple[Value, ...]] = []
    for better, worse in pairs:
        for size in sizes:
            if (better, size) in cells and (worse, size) in cells:
                points = 100 * cells[better, size].less(cells[worse, size])
                if not len(points):
                    continue
                repeats, patients = over_repeats(points[:, 0]), over_draws(points.mean(axis=0))
                rows.append((f"{model_label(better)} − {model_label(worse)}", _size(size), repeats, patients))
    title = (
        f"{_words(task)}: differences in AUROC points, paired by repeat. The first interval is over the repeats (other "
        "labelled patients, the same held-out ones), the second over held-out patients (the mean of the same repeats)."
    )
    columns = ("difference", "labelled", "over repeats", "over patients")
    return Table(f"differences{suffix}", title, columns, tuple(rows), 1)


def _facts(plan: Plan, bench: Bench) -> tuple[str, ...]:
    lines = [f"Set-up {plan.digest[:12]}; {plan.hospital.identity}; model `{plan.preset}` with the changes below."]
    for task in plan.tasks:
        judged = bench.ground(task).judged
        events = int(judged.labels.sum())
        lines.append(
            f"{_words(task)}: judged on {len(judged.subjects):,} rows of {len(np.unique(judged.subjects)):,} held-out "
            f"patients, {people(events)} with the outcome."
        )
    lines.append(
        f"Planned: {plan.repeats} repeats of each draw, {plan.repeats_of_all} with all labelled patients; "
        f"{plan.share:.0%} of a draw are cases, all labelled patients have them in their natural share."
    )
    return tuple(lines)


def _picture(plan: Plan, found: dict[str, dict[tuple[str, int | None], Found]], models: list[str]) -> bytes:
    last = 4.0 * max(plan.sizes)
    panels = {
        _words(task): {
            model_label(model): [
                (last if size is None else float(size), over_repeats(cells[model, size].values))
                for size in (*plan.sizes, None)
                if (model, size) in cells
            ]
            for model in models
        }
        for task, cells in found.items()
    }
    zero = [ORACLE, *plan.unlabelled]
    levels = {
        _words(task): {model_label(name): float(cells[name, 0].values[0]) for name in zero if (name, 0) in cells}
        for task, cells in found.items()
    }
    return curves(panels, levels, last)


def _size(size: int | None) -> str:
    return ALL if size is None else f"{size:,}"


def _words(task: str) -> str:
    return task.replace("_", " ").capitalize()
