"""What the report of a model is made of. Each part is there, or a sentence says why it is not."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ml.cohorts.runs import TrainingRun
from ml.common.errors import VigilError
from ml.common.files import read_json
from ml.evaluation.attribution import Attributions, attribute
from ml.evaluation.cohort import Cohort, read_cohort
from ml.evaluation.results import Evaluation
from ml.extraction.log import committed_partition
from ml.quality.verdict import Verdict, read_verdict
from ml.registry.store import model_digest
from ml.registry.types import Check, GateResult
from ml.settings import Settings, get_settings

SOFTWARE = ("vigil", "torch", "scikit-learn", "lightgbm", "polars", "numpy")
GATE = "gate.json"


@dataclass(frozen=True)
class ModelReport:
    """Everything the report shows of one model.

    Attributes:
        gate: its verdict, or None before there was one.
        cohort, attributions: None where ``absent`` says why.
        verdict: of quality on the newest partition of the snapshot, or None.
        config: of the model, content of config.json.
        pretraining, finetuning: their records, empty where there is none.
        digests: by what they are of.
        software: versions by name.
    """

    run: TrainingRun
    settings: Settings
    evaluation: Evaluation
    gate: GateResult | None
    cohort: Cohort | None
    attributions: Attributions | None
    verdict: Verdict | None
    config: dict[str, Any]
    pretraining: dict[str, Any]
    finetuning: dict[str, Any]
    digests: dict[str, str]
    software: dict[str, str]
    absent: dict[str, str] = field(default_factory=dict)


def gather(run: TrainingRun) -> ModelReport:
    """Read everything, and ask the model what it leans on.

    Raises:
        NotFoundError: the run has no evaluation, or no model.
    """
    evaluation, digest = Evaluation.load(run.evaluation), model_digest(run.finetuned)
    config = _json(run.finetuned / "config.json")
    absent = {}
    attributions = None
    try:
        attributions = attribute(run)
    except VigilError as error:
        absent["attributions"] = f"What the model leans on could not be asked: {error.cause}."
    cohort = read_cohort(run.path)
    if cohort is None:
        absent["cohort"] = "This run was evaluated before its cohort was described; evaluate it again."
    return ModelReport(
        run=run,
        settings=get_settings(),
        evaluation=evaluation,
        gate=read_gate(run.path / GATE),
        cohort=cohort,
        attributions=attributions,
        verdict=_verdict(run),
        config=config,
        pretraining=_json(run.pretrained / "training.json"),
        finetuning=_json(run.finetuned / "training.json"),
        digests={
            "weights, configuration, vocabulary": digest,
            "snapshot": run.snapshot.digest,
            "evaluation": evaluation.digest,
            "vocabulary": str(config.get("vocabulary_digest") or "unknown"),
        },
        software={"Python": platform.python_version(), **{name: version(name) for name in SOFTWARE}},
        absent=absent,
    )


def read_gate(path: Path) -> GateResult | None:
    """The gate's verdict as it was written; None where there is none."""
    if not path.is_file():
        return None
    values = read_json(path)
    lists = {name: tuple(values[name]) for name in ("evaluable", "not_evaluable")}
    return GateResult(**{**values, **lists, "checks": tuple(Check(**check) for check in values["checks"])})


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found


def _verdict(run: TrainingRun) -> Verdict | None:
    days = run.snapshot.partitions
    partition = committed_partition(date.fromisoformat(days[-1])) if days else None
    try:
        return read_verdict(partition) if partition else None
    except OSError:
        return None
