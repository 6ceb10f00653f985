"""What the registered model takes and gives, in MLflow's words. Imports MLflow: import it inside functions."""

from __future__ import annotations

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema


def signature() -> ModelSignature:
    """Events in, one row per subject and outcome out; the parameter ``as_of`` is the day of the view, ISO 8601."""
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.long, "subject_id"),
                ColSpec(DataType.datetime, "time"),  # NaT: static
                ColSpec(DataType.string, "code"),
                ColSpec(DataType.double, "numeric_value", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.long, "subject_id"),
                ColSpec(DataType.string, "outcome"),
                ColSpec(DataType.long, "horizon_days"),
                ColSpec(DataType.double, "risk"),
            ]
        ),
        params=ParamSchema([ParamSpec("as_of", DataType.string, "1970-01-01")]),
    )


def invented_example() -> tuple[pd.DataFrame, dict[str, str]]:
    """Two people who never were, and a day: a real example would upload patients."""
    rows: list[tuple[int, str, str, float | None]] = [
        (1, "1950-01-01", "MEDS_BIRTH", None),
        (1, "1950-01-01", "GENDER//F", None),
        (1, "2019-03-01", "ICD10CM//E11.9", None),
        (1, "2019-03-01", "LOINC//4548-4", 7.9),
        (1, "2019-09-01", "ATC//A10BA02", None),
        (2, "1980-06-01", "MEDS_BIRTH", None),
        (2, "1980-06-01", "GENDER//M", None),
        (2, "2019-05-05", "ICD10CM//I10", None),
    ]
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code", "numeric_value"])
    frame["time"] = pd.to_datetime(frame["time"])
    frame["numeric_value"] = frame["numeric_value"].astype("float64")
    return frame, {"as_of": "2019-12-31"}
