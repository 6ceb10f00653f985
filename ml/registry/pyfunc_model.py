"""The registered model, as code: MLflow stores this file's text and runs it on loading. No pickle anywhere.

It needs the package ``ml`` of the version that registered it. Input, output and parameter: ``ml.registry.signature``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class VigilModel(mlflow.pyfunc.PythonModel):
    """Events of a few subjects → their risks. For many, `ml.scoring` is the fast way."""

    def load_context(self, context: Any) -> None:
        from ml.registry.predictor import Predictor

        self.predictor = Predictor(Path(context.artifacts["finetuned"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return self.predictor.predict(model_input, (params or {})["as_of"])


mlflow.models.set_model(VigilModel())
