"""The champion on a new run's rows, so that the evaluation can compare the two. Imports torch and MLflow."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.cohorts import TrainingRun, prediction_time
from ml.common.errors import NotFoundError
from ml.common.files import write_bytes
from ml.evaluation.results import MEDBERT
from ml.models.medbert import load_model
from ml.registry.champions import champion
from ml.registry.gates import CHAMPION_MODEL
from ml.sequences import Vocabulary, load_vocabulary
from ml.training.data import labelled_data
from ml.training.inference import risks_of
from ml.training.precision import device

_ROW = ("task", "subject_id", "prediction_time")


def predict_champion(run: TrainingRun) -> Path | None:
    """Write the champion's predictions on the rows of ``medbert``; None without a champion.

    The champion reads the run's token stores through its own vocabulary: a code it never saw becomes what its own
    vocabulary makes of it. A task it was not trained on is left out.

    Raises:
        NotFoundError: the run has no predictions yet.
    """
    found = champion()
    path = run.predictions(CHAMPION_MODEL)
    if found is None or found.name == run.name:
        path.unlink(missing_ok=True)
        return None
    if not run.predictions(MEDBERT).exists():
        raise NotFoundError(f"run {run.name} has no predictions to compare with", "run the fine-tuning first")
    rows = pl.read_parquet(run.predictions(MEDBERT))
    risks = _risks(run, found.finetuned, tuple(rows["task"].unique().sort()))
    frame = rows.drop("predicted_boolean_probability").join(risks, on=_ROW, how="inner", validate="1:1")
    content = io.BytesIO()
    frame.select(rows.columns).sort(_ROW).write_parquet(content)
    write_bytes(path, content.getvalue())
    return path


def _risks(run: TrainingRun, folder: Path, wanted: tuple[str, ...]) -> pl.DataFrame:
    model = load_model(folder).to(device())
    own, theirs = load_vocabulary(folder / "vocabulary.json"), load_vocabulary(run.finetuned / "vocabulary.json")
    tasks = tuple(task for task in wanted if task in model.config.outcomes)
    if not tasks:
        raise NotFoundError("the champion was trained on none of this run's tasks", "set VIGIL_TASKS as they were")
    data = labelled_data(run, theirs, tasks, ("tuning", "held_out"), run.index_days)
    mapping = translation(theirs, own)
    stores = [replace(store, tokens=mapping[store.tokens]) for store in data.source.stores]
    risks = risks_of(model, replace(data.source, stores=stores))
    times = np.array([prediction_time(day) for day in run.index_days], "datetime64[us]")
    columns = {"subject_id": data.subjects, "prediction_time": times[data.index - 1]}
    frames = [
        pl.DataFrame(
            {
                **columns,
                "predicted_boolean_probability": risks[:, list(model.config.outcomes).index(task)].astype(float),
            }
        ).with_columns(task=pl.lit(task))
        for task in tasks
    ]
    return pl.concat(frames)


def translation(source: Vocabulary, target: Vocabulary) -> npt.NDArray[np.int32]:
    """``[source.size]``: the id in ``target`` of every token of ``source``.

    A value bin that the target does not have becomes its code, a code its longest known prefix, else [UNK].
    """
    if source.extends(target):
        head = np.arange(target.size, dtype=np.int32)
        rest = [_translated(token, target) for token in source.tokens[target.size :]]
        return np.concatenate([head, np.array(rest, np.int32)])
    return np.array([_translated(token, target) for token in source.tokens], np.int32)


def _translated(token: str, target: Vocabulary) -> int:
    code, _, bin_number = token.rpartition("//Q")
    if token in target.ids and not (bin_number.isdigit() and code in target.ids):
        return target.ids[token]
    return target.lookup(code if bin_number.isdigit() and code else token)
