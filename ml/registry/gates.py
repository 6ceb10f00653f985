"""The gate: arithmetic on an evaluation. It says whether a model may be shown to a person at all.

Every number comes from evaluation.json; nothing here is fitted or drawn, so the same evaluation gives the same verdict.
"""

from __future__ import annotations

from ml.cohorts.runs import TrainingRun
from ml.common.files import write_json
from ml.evaluation.results import (
    AGE_SEX,
    CHAMPION,
    LIGHTGBM,
    LOGISTIC_REGRESSION,
    MEDBERT,
    Estimate,
    Evaluation,
    ModelResult,
    TaskResult,
)
from ml.registry.types import Check, GateResult, Number, refuses
from ml.settings import Settings, get_settings

SLOPE_LOW, SLOPE_HIGH = 0.5, 2.0  # a calibration slope outside is a risk that should not be read as a probability


def gate(run: TrainingRun) -> GateResult:
    """Judge a run's evaluation and write gate.json beside it.

    Raises:
        NotFoundError: the run was not evaluated.
        ConfigError: the evaluation was changed after it was written.
        TrackingError: MLflow, which knows the champion, does not answer.
    """
    from ml.registry.tracking import CHAMPION as ALIAS
    from ml.registry.tracking import by_alias, connected

    evaluation = Evaluation.load(run.evaluation)
    with connected() as client:
        champion = by_alias(client, ALIAS)
    rival = champion.version if champion is not None and champion.name != run.name else None
    result = judge(evaluation, get_settings(), rival)
    write_json(run.path / "gate.json", result.to_json())
    return result


def judge(evaluation: Evaluation, settings: Settings, rival: int | None = None) -> GateResult:
    """The verdict on an evaluation; a pure function.

    Args:
        rival: version of the champion that the evaluation must have compared with; None where there is none.
    """
    checks: list[Check] = []
    evaluable: list[str] = []
    for task in sorted(evaluation.tasks):
        events = _events(evaluation.tasks[task], settings)
        checks.append(events)
        if events.passed:
            evaluable.append(task)
            checks.extend(_task_checks(evaluation.tasks[task], settings))
    checks.append(_enough(evaluable, settings))
    if rival is not None and CHAMPION not in evaluation.models:
        checks.append(_not_compared(rival))
    checks.append(_no_leak(evaluation))
    return GateResult(
        run=evaluation.run,
        passed=not any(refuses(c) for c in checks),
        reason=_reason(checks, evaluable),
        evaluable=tuple(evaluable),
        not_evaluable=tuple(task for task in sorted(evaluation.tasks) if task not in evaluable),
        checks=tuple(checks),
        metrics_digest=evaluation.digest,
    )


def _task_checks(result: TaskResult, settings: Settings) -> list[Check]:
    model = result.all_days[MEDBERT]
    checks = [_better_than_chance(result.task, model), _calibrated(result.task, model)]
    for other in sorted(set(result.all_days) & {AGE_SEX, LOGISTIC_REGRESSION, LIGHTGBM}):
        checks.append(_against(result, other, blocking=settings.gate_baselines, bound=0.0))
    if CHAMPION in result.all_days:
        checks.append(_against(result, CHAMPION, blocking=True, bound=settings.gate_difference))
    return checks


def _events(result: TaskResult, settings: Settings) -> Check:
    """Not blocking by itself: an outcome that cannot be judged is no evidence, is left out, and said to be."""
    model = result.all_days.get(MEDBERT)
    events = model.events if model is not None else 0
    enough = events >= settings.gate_events and model is not None and model.auroc is not None
    hidden = 0 < events < settings.min_cell  # a small count of patients with an outcome is itself a disclosure
    shown = f"fewer than {settings.min_cell}" if hidden else f"{events:,}"
    numbers: dict[str, Number] = {"events": None if hidden else events, "needed": settings.gate_events}
    sentence = f"{result.task}: {shown} held-out events, {settings.gate_events} are needed to judge it"
    if model is None or model.auroc is None:
        reason = result.reason or (model.reason if model is not None else None) or "Med-BERT was not judged"
        sentence = f"{result.task} is not evaluable: {reason}"
    return Check("events", result.task, enough, False, numbers, sentence)


def _enough(evaluable: list[str], settings: Settings) -> Check:
    if evaluable:
        sentence = f"{len(evaluable)} outcome(s) can be judged: {', '.join(evaluable)}"
    else:
        sentence = f"no outcome has the {settings.gate_events} held-out events a judgement needs"
    return Check("evidence", None, bool(evaluable), True, {"evaluable": len(evaluable)}, sentence)


def _not_compared(rival: int) -> Check:
    sentence = f"the champion, version {rival}, was not judged on the same patients"
    return Check("champion_compared", None, False, True, {"champion": rival}, sentence)


def _no_leak(evaluation: Evaluation) -> Check:
    found = evaluation.warnings
    sentence = "; ".join(w.message for w in found) if found else "no sign of leakage"
    return Check("no_leak", None, not found, True, {"warnings": len(found)}, sentence)


def _better_than_chance(task: str, model: ModelResult) -> Check:
    auroc = model.auroc
    passed = auroc is not None and auroc.low > 0.5
    sentence = f"{task}: AUROC {auroc}, the lower bound must be above 0.5" if auroc else f"{task}: no AUROC"
    return Check("better_than_chance", task, passed, True, {**_numbers(auroc), "bound": 0.5}, sentence)


def _calibrated(task: str, model: ModelResult) -> Check:
    slope = model.calibration_slope
    passed = slope is not None and SLOPE_LOW <= slope.value <= SLOPE_HIGH
    wanted = f"must lie between {SLOPE_LOW} and {SLOPE_HIGH}"
    sentence = f"{task}: calibration slope {slope}, {wanted}" if slope else f"{task}: no calibration slope, it {wanted}"
    return Check("calibrated", task, passed, True, {**_numbers(slope), "from": SLOPE_LOW, "to": SLOPE_HIGH}, sentence)


def _against(result: TaskResult, other: str, *, blocking: bool, bound: float) -> Check:
    """Lower bound of the paired AUROC difference (ours minus the other's) above a bound."""
    pair = result.differences.get(f"{MEDBERT}-minus-{other}")
    difference = pair.auroc if pair is not None else None
    passed = None if difference is None else difference.low > bound
    name = other.replace("_", " ")
    wanted = f"the lower bound must be above {bound:g}" if blocking else "shown for judgement, it does not block"
    sentence = f"{result.task}: AUROC minus {name}'s is {_signed(difference)}; {wanted}"
    return Check(f"against_{other}", result.task, passed, blocking, {**_numbers(difference), "bound": bound}, sentence)


def _reason(checks: list[Check], evaluable: list[str]) -> str:
    if not evaluable:
        return "refused for want of evidence: " + next(c.sentence for c in checks if c.name == "evidence")
    failed = [c.sentence for c in checks if refuses(c)]
    if failed:
        return "refused: " + "; ".join(failed)
    return f"passed on {len(evaluable)} outcome(s): {', '.join(evaluable)}"


def _numbers(estimate: Estimate | None) -> dict[str, Number]:
    return estimate.model_dump() if estimate is not None else {"value": None, "low": None, "high": None}


def _signed(estimate: Estimate | None) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]" if estimate else "unknown"
