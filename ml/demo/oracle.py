"""The oracle: the probability of an outcome given what was recorded by the day, under the known process.

It reads the record alone, as a model does, and knows the process that made it. Nothing is fitted. It is no exact
posterior (`ml.demo.posterior`): docs/reference/demo-hospital.md has how well it is calibrated, and what the true state
(`ml.demo.ceiling`), which no record shows, would add.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.common.errors import NotFoundError
from ml.demo.ceiling import read_process
from ml.demo.hidden import Beginning, Hidden, beginning, hidden
from ml.demo.histories import YEAR, Effects
from ml.demo.outcomes import Outcome, outcome_of
from ml.demo.people import LEAVE_RATE
from ml.demo.posterior import Posterior, infer, trait_factors
from ml.demo.process import AGES, LATENT, Process
from ml.demo.recorded import EPISODE_DAYS, recorded
from ml.demo.records import ACUTE_NEVER, LATE_DAYS, LATE_SHARE, NEVER_SHARE, WRONG_CODE
from ml.demo.simulate import NEVER
from ml.evaluation.results import ORACLE
from ml.settings import get_settings

if TYPE_CHECKING:
    from ml.cohorts.runs import TrainingRun

Floats = NDArray[np.float64]
PEOPLE = 4_000  # inferred at once
JUDGED = ("tuning", "held_out")
SAME_CODE = 0.8  # of later codings, see `ml.demo.records`


def risks(process: Process, outcomes: Mapping[str, Outcome], events: pl.DataFrame, day: date) -> pl.DataFrame:
    """Risks of all living people of a view.

    Args:
        events: ``subject_id``, ``time``, ``code``, ``numeric_value`` as known at the end of ``day``.

    Returns:
        ``subject_id`` and a column for each outcome; ordered. What a task leaves out of scope has a risk as well.
    """
    known = [_risks(process, outcomes, part, day) for part in _parts(events)]
    columns = {"subject_id": pl.Int64, **dict.fromkeys(outcomes, pl.Float64)}
    return pl.concat([pl.DataFrame(schema=columns), *known]).sort("subject_id")


def _parts(events: pl.DataFrame) -> Iterator[pl.DataFrame]:
    subjects = events["subject_id"].unique().sort()
    for low in range(0, len(subjects), PEOPLE):
        part = subjects[low : low + PEOPLE]
        yield events.filter(pl.col("subject_id").is_between(part[0], part[-1]))


def _risks(process: Process, outcomes: Mapping[str, Outcome], events: pl.DataFrame, day: date) -> pl.DataFrame:
    record = recorded(process, events, day)
    posterior = infer(process, record)
    found = {name: pl.Series(risk(process, posterior, outcome)) for name, outcome in outcomes.items()}
    return pl.DataFrame({"subject_id": record.subjects, **found})


def risk(process: Process, posterior: Posterior, outcome: Outcome) -> Floats:
    """(n,) probability that the outcome is recorded, with death and moving away as competing events."""
    years = (outcome.horizon - outcome.delay) / YEAR
    rates, latent = _rates(process, posterior, outcome)
    dying = rates[:, process.death, None] * trait_factors(process)[None, :, process.death]
    if outcome.death:
        wanted, other, spared = dying, np.full_like(dying, LEAVE_RATE), np.ones(len(dying))
    else:
        unseen = {d: _unseen(process, posterior, d, years) for d in outcome.diseases.tolist()}
        wanted = _coming(process, posterior, outcome, rates, unseen)
        spared = _spared(process, posterior, outcome, rates, unseen, latent)
        other = LEAVE_RATE + dying
    total = wanted + other
    new = (posterior.weights * (wanted / total * -np.expm1(-total * years))).sum(axis=1)
    return np.asarray((1 - (1 - new) * spared) * posterior.here)


def _rates(process: Process, posterior: Posterior, outcome: Outcome) -> tuple[Floats, Beginning]:
    """(n, D + 1) yearly hazards at the horizon's middle at mean traits, and what is believed of the latent disease."""
    record, years = posterior.record, (outcome.horizon - outcome.delay) / YEAR
    middle = record.today + outcome.delay + (outcome.horizon - outcome.delay) // 2
    age = np.clip((middle - record.born) // YEAR, 0, AGES - 1).astype(np.int64)
    rates = process.base[age, record.sex].astype(np.float64) * posterior.factors
    latent = beginning(process, posterior, rates[:, process.index(LATENT)], years)
    prodrome = Effects(process, "prodrome")
    rates[:, prodrome.target] *= 1 + latent.unseen[:, None] * prodrome.excess
    return rates, latent


def _coming(
    process: Process, posterior: Posterior, outcome: Outcome, rates: Floats, unseen: Mapping[int, Hidden]
) -> Floats:
    """(n, POINTS) yearly rate at which something new, or a wrong code, brings the outcome into the record."""
    record, years, factors = posterior.record, (outcome.horizon - outcome.delay) / YEAR, trait_factors(process)
    wrong = record.codings / np.maximum((record.today - record.entry) / YEAR, 1) * WRONG_CODE / process.death
    wanted = np.repeat((wrong * outcome.shares[:, record.site].sum(axis=0))[:, None], len(factors), axis=1)
    for disease, state in unseen.items():
        share = outcome.shares[disease, record.site] * _recorded_share(process, disease, years) * state.absent
        if process.diseases[disease].category != LATENT:
            wanted += rates[:, disease, None] * factors[None, :, disease] * share[:, None]
    return wanted


def _spared(
    process: Process,
    posterior: Posterior,
    outcome: Outcome,
    rates: Floats,
    unseen: Mapping[int, Hidden],
    latent: Beginning,
) -> Floats:
    """(n,) probability that nothing which is there already is recorded as the outcome."""
    years, site = (outcome.horizon - outcome.delay) / YEAR, posterior.record.site
    spared = np.ones(len(site))
    for disease, state in unseen.items():
        if process.diseases[disease].category == LATENT:
            lost = np.exp(-(LEAVE_RATE + rates[:, process.death]) * years / 2)
            spared *= 1 - latent.seen * _recorded_share(process, disease, years) * lost
        else:
            spared *= 1 - state.caught * outcome.shares[disease, site]
            spared *= np.exp(-_again(process, posterior, outcome, disease, years))
    return spared


def _unseen(process: Process, posterior: Posterior, disease: int, years: float) -> Hidden:
    """Of a disease that can come but once: whether it is there already. One that can come again always can."""
    n = len(posterior.record)
    if not process.chronic[disease]:
        return Hidden(absent=np.ones(n), caught=np.zeros(n))
    found = hidden(process, posterior, disease, years)
    recorded_ = posterior.record.first[:, disease] < NEVER
    return Hidden(
        absent=np.where(recorded_, 1 - posterior.known[:, disease], found.absent),
        caught=np.where(recorded_, 0, found.caught),
    )


def _recorded_share(process: Process, disease: int, years: float) -> float:
    """Share of the onsets within the horizon that are recorded within it."""
    if not process.chronic[disease]:
        return 1 - ACUTE_NEVER
    ratio = LATE_DAYS / (years * YEAR)
    in_time = 1 - ratio * -np.expm1(-1 / ratio)
    return float(1 - NEVER_SHARE - LATE_SHARE * (1 - in_time))


def _again(process: Process, posterior: Posterior, outcome: Outcome, disease: int, years: float) -> Floats:
    """(n,) codings of the outcome expected from a disease that is in the record: at visits, what is acute while fresh.

    Where those who had the outcome are out of scope, the disease bore another code so far.
    """
    record = posterior.record
    share = outcome.shares[disease, record.site] * (1 - SAME_CODE if outcome.first else 1.0)
    share = np.where(outcome.first & (outcome.shares[disease, record.site] >= 1), 0.0, share)
    left = np.full(len(record), years)
    if not process.chronic[disease]:
        left = np.clip((EPISODE_DAYS - record.fresh[:, disease]) / YEAR, 0, years)
    visits = posterior.visit_rate * process.diseases[disease].recode * share * left
    return np.asarray(np.where(record.first[:, disease] < NEVER, posterior.known[:, disease] * visits, 0.0))


def write_predictions(run: TrainingRun) -> Path:
    """Write ``predictions/oracle.parquet`` of a training run: held-out and tuning patients at every index day.

    Raises:
        NotFoundError: the demo hospital is not loaded, or the oracle knows none of the tasks.
    """
    from ml.cohorts import load_tasks
    from ml.evaluation.rows import write_predictions as write_rows

    process = read_process()
    tasks = load_tasks(tuple(task for task in get_settings().tasks if run.labels(task).exists()))
    outcomes = {task.name: outcome_of(process, task) for task in tasks}
    known = {name: outcome for name, outcome in outcomes.items() if outcome is not None}
    if not known:
        raise NotFoundError("no task of this run has an oracle", "label death or a task of diagnoses first")
    write_rows(run, ORACLE, [predictions(run, process, known)])
    return run.predictions(ORACLE)


def predictions(
    run: TrainingRun, process: Process, outcomes: Mapping[str, Outcome], splits: tuple[str, ...] = JUDGED
) -> pl.DataFrame:
    """The oracle's answers to a run's labels of patients of these splits; columns of the MEDS evaluation schema and
    ``task`` and ``split``, ordered.
    """
    from ml.cohorts.views import views_at

    labels = {name: pl.read_parquet(run.labels(name)).filter(pl.col("split").is_in(splits)) for name in outcomes}
    wanted = pl.concat([frame.select("subject_id") for frame in labels.values()]).unique()
    frames = []
    for shard in range(run.snapshot.shards):
        for day, view in zip(run.index_days, views_at(run.snapshot, run.index_days, shard), strict=True):
            mine = view.join(wanted, on="subject_id", how="semi")
            frames += list(_answers(labels, risks(process, outcomes, mine, day), day))
    return pl.concat(frames).sort("task", "subject_id", "prediction_time")


def _answers(labels: Mapping[str, pl.DataFrame], found: pl.DataFrame, day: date) -> Iterator[pl.DataFrame]:
    for name, frame in labels.items():
        rows = frame.filter(pl.col("prediction_time").dt.date() == day + timedelta(days=1))
        yield rows.join(found.select("subject_id", name), on="subject_id").select(
            "subject_id",
            pl.col("prediction_time").cast(pl.Datetime("us")),
            "boolean_value",
            pl.col(name).alias("predicted_boolean_probability"),
            pl.lit(name).alias("task"),
            "split",
        )
