"""The stored model loads from MLflow without any pickle and gives the risks that the model itself gives."""

from __future__ import annotations

import numpy as np
import pytest

from ml.registry import register
from ml.registry.tracking import connected
from ml.sequences import Vocabulary
from ml.sequences.vocabulary import SPECIALS
from ml.settings import Settings
from tests.ml.invented_runs import make_run, save_random_model

CODES = ("ATC//A10B", "GENDER//F", "GENDER//M", "ICD10CM//E11", "ICD10CM//E11.9", "LOINC//4548-4")
BINS = ("LOINC//4548-4//Q1", "LOINC//4548-4//Q2")


def test_the_stored_model_predicts_from_events(tracked: Settings) -> None:
    import mlflow

    from ml.registry.predictor import Predictor
    from ml.registry.signature import invented_example

    run = make_run(seed=201)
    vocabulary = Vocabulary(SPECIALS + CODES + BINS, {"LOINC//4548-4": (6.5,)})
    save_random_model(run.finetuned, vocabulary, {"heart_failure": 365, "stroke": 180})
    version = register(run).version
    events, params = invented_example()
    with connected():
        model = mlflow.pyfunc.load_model(f"models:/{tracked.model_name}/{version}")
    found = model.predict(events, params)
    assert found["subject_id"].tolist() == [1, 1, 2, 2]
    assert found["outcome"].tolist() == ["heart_failure", "stroke"] * 2
    assert found["horizon_days"].tolist() == [365, 180] * 2
    assert found["risk"].between(0, 1).all()
    direct = Predictor(run.finetuned)
    np.testing.assert_allclose(found["risk"], direct.predict(events, params["as_of"])["risk"], rtol=1e-6)
    earlier = direct.predict(events, "2019-02-01")  # before the first diagnosis
    assert not np.allclose(earlier["risk"], found["risk"])


@pytest.mark.parametrize("name", ["ml.registry.commands", "ml.publication.commands", "ml.registry", "ml.publication"])
def test_the_command_line_starts_without_anything_heavy(name: str) -> None:
    import subprocess
    import sys

    heavy = ("torch", "transformers", "mlflow", "great_expectations", "matplotlib", "sklearn", "polars", "pyarrow")
    code = f"import sys, {name}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
