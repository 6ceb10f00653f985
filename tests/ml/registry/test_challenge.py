"""The champion is judged on the challenger's own rows."""

from __future__ import annotations

import shutil

import numpy as np
import polars as pl
import pytest
from invented_runs import make_run, save_random_model
from synthetic_log import END, commit, make_events

from ml.cohorts import make_labels, open_run
from ml.registry import predict_champion, promote, register
from ml.registry.review import approve
from ml.sequences import load_vocabulary, prepare
from ml.settings import Settings, get_settings


def test_a_champion_with_the_same_weights_gives_the_same_risks_on_the_same_rows(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_TASKS", '["heart_failure", "type_2_diabetes"]')
    get_settings.cache_clear()
    commit(make_events(200, 30), digest="ab" * 32)
    run = open_run(END)
    prepare(run)
    make_labels(run)
    save_random_model(run.finetuned, load_vocabulary(run.vocabulary), {"heart_failure": 365, "type_2_diabetes": 365})
    from ml.training.predict import write_predictions

    write_predictions(run)
    assert predict_champion(run) is None

    champion_run = make_run(seed=301)
    shutil.rmtree(champion_run.finetuned)
    shutil.copytree(run.finetuned, champion_run.finetuned)
    version = register(champion_run).version
    approve(version, "dr. a", "looks right")
    promote(version)
    path = predict_champion(run)
    assert path == run.predictions("champion")
    theirs, ours = pl.read_parquet(path), pl.read_parquet(run.predictions("medbert"))
    assert ours.height > 50
    assert theirs.drop("predicted_boolean_probability").equals(ours.drop("predicted_boolean_probability"))
    np.testing.assert_allclose(
        theirs["predicted_boolean_probability"], ours["predicted_boolean_probability"], rtol=1e-5
    )
