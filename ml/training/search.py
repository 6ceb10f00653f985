"""A study of hyper-parameters (Optuna, Akiba 2019): trials with a share of the budget, judged on the tuning split.

The study is a journal in the run's folder: a search that was killed goes on, its last trial from its checkpoint. The
preset's own values are the first trial, so that what is chosen was never worse on the tuning split.
"""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ml.cohorts import TrainingRun, load_tasks
from ml.common.errors import VigilError
from ml.common.files import sha256_file, write_json
from ml.models.presets import Preset
from ml.settings import get_settings
from ml.training import finetuning, pretraining
from ml.training.engine import Engine
from ml.training.interruption import StoppedError
from ml.training.setup import Setup, model_for, placed, seed_all, setup, weights_digest
from ml.training.space import Dimension, base_of, best_path, drawn, own_values, trials_path

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


def search(run: TrainingRun, trials: int, initial: Path | None = None) -> Path:
    """Make trials until there are so many, and leave the best values for the run's training.

    Args:
        run: sequences and labels must be there.
        trials: in all, with those of an earlier call.
        initial: folder of a model that each trial starts from, as the training itself will.

    Returns:
        The file with the best values.

    Raises:
        VigilError: an input is absent, or a trial's loss is not finite for the preset's own values.
        StoppedError: the process was asked to stop; the next call goes on.
    """
    labels = sha256_file(run.labels(get_settings().tasks[0]).parent / "manifest.json")
    ready = setup(run, "search", initial=weights_digest(initial) if initial else None, labels=labels)
    study = _open(run, ready)
    while (done := len(_ended(study))) < trials:
        _try(run, ready, study, initial)
        _write(run, ready.preset, study)
        log.info("search: trial %d of %d; the best reached %.4f", done + 1, trials, study.best_value)
    _write(run, ready.preset, study)
    return best_path(run.path)


def _try(run: TrainingRun, ready: Setup, study: optuna.Study, initial: Path | None) -> None:
    """One trial. One that diverges counts as tried; the preset's own values may not diverge."""
    from optuna.trial import TrialState

    trial = study.ask()
    preset = drawn(ready.preset, partial(_draw, trial))
    try:
        study.tell(trial, score(run, _with(ready, preset), initial))
    except StoppedError:
        raise
    except VigilError as error:
        study.tell(trial, state=TrialState.PRUNED)
        if not _complete(study):
            raise
        log.warning("search: trial %d failed (%s)", trial.number, error.cause)


def score(run: TrainingRun, ready: Setup, initial: Path | None) -> float:
    """Train with a share of the budget: the best macro AUROC on the tuning split, or, where it has no events, how low
    the loss of pretraining came, negative."""
    seed_all(ready.inputs["seed"])
    share = get_settings().search_share * (ready.preset.warm_start if initial else 1.0)
    folder = run.path / "search" / ready.digest[:12]
    model = placed(model_for(ready, initial))
    first = replace(pretraining.course(model, run, ready, share, initial), name="search_pretrain", folder=folder)
    record = Engine(model, first).run()
    model = placed(finetuning.with_heads(model, load_tasks(get_settings().tasks), ready.vocabulary))
    training, tuning = finetuning.data_of(model, run, ready)
    second = replace(finetuning.course(model, training, run, ready, share), name="search_finetune", folder=folder)
    best, _ = finetuning.learn(model, training, tuning, ready, second)
    shutil.rmtree(folder)
    return -record.recent if math.isinf(best.score) else best.score


def _open(run: TrainingRun, ready: Setup) -> optuna.Study:
    """The study of these inputs; a trial that was cut off is asked for again."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = run.path / "search" / "journal.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=ready.digest,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="maximize",
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial(own_values(ready.preset))
    seed = (ready.inputs["seed"] + len(study.trials)) % 2**32  # else a resumed search would draw the same values again
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _draw(trial: optuna.Trial, of: Dimension, low: float, high: float) -> float:
    return trial.suggest_float(of.key, low, high, log=of.log)


def _with(ready: Setup, preset: Preset) -> Setup:
    return replace(ready, preset=preset, inputs={**ready.inputs, "preset": preset.model_dump()})


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE,))


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _write(run: TrainingRun, preset: Preset, study: optuna.Study) -> None:
    """All finished trials, which a later stage sends to MLflow, and the best one's values."""
    done = [
        {"number": t.number, "values": t.params, "score": t.value, "seconds": t.duration.total_seconds()}
        for t in _complete(study)
        if t.duration is not None
    ]
    write_json(trials_path(run.path), {"study": study.study_name, "trials": done})
    best = {"base": base_of(preset), "values": study.best_params, "score": study.best_value, "trials": len(done)}
    write_json(best_path(run.path), best)
