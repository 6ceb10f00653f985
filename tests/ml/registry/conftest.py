"""A run with all that a report shows: real labels, token stores and evaluation, a model with a planted weight."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import TrainingRun, make_labels, open_run
from ml.cohorts.splits import split_of
from ml.common.files import write_json
from ml.evaluation import evaluate
from ml.evaluation.results import Evaluation
from ml.registry.gates import judge
from ml.sequences import prepare
from ml.settings import get_settings
from tests.ml.evaluation.conftest import set_place
from tests.ml.evaluation.invented_hospital import (
    AS_OF,
    FIRST,
    RISK_CODE,
    START,
    answer,
    commit,
    invented_events,
)

RARE = "ICD10CM//Q87.4"  # many train patients have it, but only five of those held out
PLANTED = 1.5  # log-odds that the model gives to whoever has RISK_CODE


def _with_rare_code(events: pl.DataFrame, subjects: int) -> pl.DataFrame:
    splits = {subject: split_of(subject, get_settings().split_salt) for subject in range(FIRST, FIRST + subjects)}
    having = [subject for subject, split in splits.items() if split == "train"][:60]
    having += [subject for subject, split in splits.items() if split == "held_out"][:5]
    rows = events.filter(pl.col("subject_id").is_in(having)).unique("subject_id", maintain_order=True)
    rare = rows.with_columns(
        code=pl.lit(RARE),
        time=pl.lit(START),
        recorded_at=pl.lit(START),
        source_key=pl.format("invented/rare/{}", "subject_id"),
    )
    return pl.concat([events, rare])


def _save_planted_model(run: TrainingRun) -> None:
    import torch

    from ml.models.config import config_of
    from ml.models.files import save_model
    from ml.models.heads import Heads
    from ml.models.medbert import new_model
    from ml.models.presets import ModelPreset
    from ml.sequences import load_vocabulary

    torch.manual_seed(7)
    vocabulary = load_vocabulary(run.vocabulary)
    shape = ModelPreset(
        hidden=16, layers=1, heads=2, feedforward=16, dropout=0.0, norm="pre", visits=8, linear_path=True
    )
    config = config_of(shape, vocabulary.size, vocabulary.digest, 64)
    config.outcomes, config.horizons = ["heart_failure", "death"], [365, 365]
    config.calibration = [[1.0, 0.0], [1.0, 0.0]]
    model = new_model(config, torch.from_numpy(vocabulary.parents))
    assert isinstance(model.heads, Heads)
    assert model.heads.codes is not None
    with torch.no_grad():
        model.heads.codes[vocabulary.ids[RISK_CODE], 0] = PLANTED
    record = {"stage": "finetune", "inputs": "invented", "tokens": 12_345, "epochs": 1.5, "seconds": 20.0}
    save_model(run.finetuned, model.eval(), vocabulary, record)


@pytest.fixture(scope="session")
def reported_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State directory of the evaluated run; each test copies it."""
    home = tmp_path_factory.mktemp("reported") / "vigil"
    with pytest.MonkeyPatch.context() as patch:
        set_place(patch, home)
        commit(_with_rare_code(invented_events(800), 800))
        run = open_run(AS_OF)
        make_labels(run)
        prepare(run)
        _save_planted_model(run)
        for model, noise in (("medbert", 1.0), ("champion", 1.3), ("oracle", 0.5)):
            answer(run, model, noise=noise)
        evaluate(run)
        settings = get_settings().model_copy(update={"gate_events": 20})
        write_json(run.path / "gate.json", judge(Evaluation.load(run.evaluation), settings).to_json())
    get_settings.cache_clear()
    return home


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported_home: Path) -> Iterator[TrainingRun]:
    """The evaluated run, in a state directory of the test's own."""
    set_place(monkeypatch, tmp_path / "vigil")
    shutil.copytree(reported_home, tmp_path / "vigil")
    yield open_run(AS_OF)
    get_settings.cache_clear()
