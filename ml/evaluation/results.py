"""What an evaluation says: typed, frozen, JSON. The gate, the registry and the report read it.

Aggregates only: no patient, no row, no calibration group below ``CELL`` rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from ml.common.errors import ConfigError, NotFoundError
from ml.common.files import read_json, sha256_json, write_json

MetricName = Literal["auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"]
METRICS: tuple[MetricName, ...] = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
MEDBERT, CHAMPION, LOGISTIC_REGRESSION, LIGHTGBM, AGE_SEX, ORACLE = (
    "medbert",
    "champion",
    "logistic_regression",
    "lightgbm",
    "age_sex",
    "oracle",
)
ALERT_RATES = (0.01, 0.05, 0.1)  # shares of the rows that are alerted
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # risks from which one would act
CELL = 11  # least rows in a calibration group, least events and non-events behind a drawn ROC curve


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """A value and its 95 % interval (percentile bootstrap over patients)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class AlertRate(_Frozen):
    """What alerting the rows of highest risk gives, ``rate`` of all rows; those who tie at the border by lot.

    Attributes:
        sensitivity: share of the events that are among the alerted.
        ppv: share of the alerted that have the event.
        number_needed: alerts for one event found, 1 / ppv; None where the bound is infinite, and in differences.
    """

    rate: float
    sensitivity: Estimate | None = None
    ppv: Estimate | None = None
    number_needed: Estimate | None = None


class NetBenefit(_Frozen):
    """Net benefit, in true positives per row, of acting on risks of ``threshold`` or more.

    Attributes:
        value: the model's.
        treat_all: of acting on everybody; of acting on nobody it is 0. None in differences, where it cancels.
    """

    threshold: float
    value: Estimate | None = None
    treat_all: float | None = None


class MetricSet(_Frozen):
    """Each metric, or None where it cannot be told (``ModelResult.reason`` says why).

    Attributes:
        auroc: area under the ROC curve, ties count half.
        auprc: average precision.
        brier: mean squared error of the probability; lower is better.
        calibration_slope: ideal 1; below 1 the risks are too extreme.
        calibration_intercept: calibration in the large, ideal 0; below 0 the risks are too high.
        time_dependent_auroc: cumulative/dynamic AUROC at the horizon, weighted for censoring; None where no judged row
            is censored before the horizon, and then ``auroc`` is the same number.
        alerts: at each of ``ALERT_RATES``; empty where an alert would be about fewer than ``CELL`` rows.
        net_benefit: at each of ``THRESHOLDS``.
    """

    auroc: Estimate | None = None
    auprc: Estimate | None = None
    brier: Estimate | None = None
    calibration_slope: Estimate | None = None
    calibration_intercept: Estimate | None = None
    time_dependent_auroc: Estimate | None = None
    alerts: tuple[AlertRate, ...] = ()
    net_benefit: tuple[NetBenefit, ...] = ()

    def get(self, metric: MetricName) -> Estimate | None:
        """The estimate of a metric by its name."""
        value: Estimate | None = getattr(self, metric)
        return value


class ModelResult(MetricSet):
    """One model on one task.

    Attributes:
        n: judged rows (patient × index day).
        events: rows with the outcome.
        subjects: distinct patients among the rows.
        roc: thinned ROC curve, (false positive rate, true positive rate).
        precision_recall: thinned curve, (recall, precision); left out of the JSON where it is empty, so that
            evaluations from before there was one keep their digest.
        calibration: (mean predicted risk, observed share, rows), groups of at least ``CELL`` rows.
        calibration_bands: 95 % interval of each group's observed share, the groups held fixed.
        reason: why metrics are None.
    """

    n: int
    events: int
    subjects: int
    roc: tuple[tuple[float, float], ...] = ()
    precision_recall: tuple[tuple[float, float], ...] = ()
    calibration: tuple[tuple[float, float, int], ...] = ()
    calibration_bands: tuple[tuple[float, float], ...] = ()
    reason: str | None = None

    @model_serializer(mode="wrap")
    def _without_empty_curve(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if not self.precision_recall:
            del written["precision_recall"]
        return written


class Subgroup(_Frozen):
    """All models on some of a task's rows, every index day, with intervals from the first ``draws`` draws.

    Attributes:
        by: what the rows were divided by.
        value: which of them these are, e.g. ``F``, ``45-64``, ``A``.
        n, events: rows, and rows with the outcome; None for all groups of a division in which any of these counts is
            below ``CELL``, for it would follow from the others and the whole.
        models: by model; empty where ``reason`` says why.
        differences: as in ``TaskResult``.
    """

    by: Literal["sex", "age", "site"]
    value: str
    n: int | None
    events: int | None
    draws: int
    models: dict[str, MetricSet] = Field(default_factory=dict)
    differences: dict[str, MetricSet] = Field(default_factory=dict)
    reason: str | None = None


class TaskResult(_Frozen):
    """All models on one task, on held-out patients.

    Attributes:
        all_days: by model, every index day.
        temporal: by model, the temporal hold-out (the newest index day alone).
        differences: ``medbert-minus-<model>`` → paired differences of every metric, every index day.
        temporal_differences: the same on the temporal hold-out.
        subgroups: by sex, age band and site.
        reason: why no model could be judged on this task at all.
    """

    task: str
    horizon_days: int
    all_days: dict[str, ModelResult]
    temporal: dict[str, ModelResult]
    differences: dict[str, MetricSet] = Field(default_factory=dict)
    temporal_differences: dict[str, MetricSet] = Field(default_factory=dict)
    subgroups: tuple[Subgroup, ...] = ()
    reason: str | None = None


class Macro(_Frozen):
    """Means over the tasks on which every model could be judged."""

    tasks: tuple[str, ...] = ()
    models: dict[str, MetricSet] = Field(default_factory=dict)
    differences: dict[str, MetricSet] = Field(default_factory=dict)


class LeakWarning(_Frozen):
    """A sign of leakage, for a person and the gate to weigh."""

    kind: Literal["above_oracle", "single_code"]
    task: str
    message: str


class Evaluation(_Frozen):
    """Everything one evaluation found.

    Attributes:
        run: name of the training run.
        tasks: by task name.
        macro: means over tasks, every index day.
        warnings: signs of leakage.
        draws: bootstrap draws behind each interval.
        digest: SHA-256 of the canonical JSON of all other fields.
    """

    run: str
    as_of: date
    test_day: date
    snapshot_digest: str
    tasks: dict[str, TaskResult]
    macro: Macro = Macro()
    warnings: tuple[LeakWarning, ...] = ()
    draws: int
    seed: int
    digest: str = ""

    @property
    def not_evaluable(self) -> dict[str, str]:
        """Why Med-BERT could not be judged, by task; the other tasks are evidence."""
        found = {}
        for name, task in self.tasks.items():
            ours = task.all_days.get(MEDBERT)
            if ours is None or ours.auroc is None:
                found[name] = task.reason or (ours.reason if ours else None) or "Med-BERT was not judged"
        return found

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the judged models, Med-BERT first."""
        found = {name for task in self.tasks.values() for name in task.all_days}
        return tuple(sorted(found, key=_model_order))

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom: AUROCs with intervals, no counts of patients."""
        return {
            "run": self.run,
            "digest": self.digest,
            "warnings": [warning.message for warning in self.warnings],
            "not_evaluable": self.not_evaluable,
            "auroc": {
                name: {model: str(result.auroc or result.reason) for model, result in task.all_days.items()}
                for name, task in self.tasks.items()
            },
        }

    def sealed(self) -> Evaluation:
        """The same with its digest."""
        return self.model_copy(update={"digest": self.computed_digest()})

    def computed_digest(self) -> str:
        """SHA-256 over all fields but the digest."""
        return sha256_json(self.model_dump(mode="json", exclude={"digest"}))

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; an unsealed evaluation is sealed first."""
        write_json(path, self.sealed().model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read an evaluation.

        Raises:
            NotFoundError: there is none.
            ConfigError: the file was changed after it was written, or is of another version.
        """
        if not path.exists():
            raise NotFoundError(f"no evaluation at {path}", "run the retraining's evaluate step first")
        remedy = "evaluate the run again"
        try:
            found = cls.model_validate(read_json(path))
        except (ValidationError, ValueError):
            raise ConfigError(f"{path} is not an evaluation of this version", remedy) from None
        if found.digest != found.computed_digest():
            raise ConfigError(f"{path} does not match its own digest", remedy)
        return found


def _model_order(name: str) -> tuple[int, str]:
    known = (MEDBERT, CHAMPION, LIGHTGBM, LOGISTIC_REGRESSION, AGE_SEX, ORACLE)
    return (known.index(name) if name in known else len(known) - 1, name)


def comparisons(models: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(other model, name of the paired difference) for every model that Med-BERT is compared with."""
    for other in models:
        if other != MEDBERT and MEDBERT in models:
            yield other, f"{MEDBERT}-minus-{other}"
