"""Sentences of the report, each computed from the figures it speaks of."""

from __future__ import annotations

from ml.evaluation.results import LOGISTIC_REGRESSION, MEDBERT, Estimate, Evaluation, TaskResult
from ml.publication.report_figures import model_name
from ml.publication.report_inputs import Decision, Model, Night


def outcome_name(task: str) -> str:
    """``type_2_diabetes`` → ``Type 2 diabetes``."""
    return task.replace("_", " ").capitalize()


def signed(e: Estimate) -> str:
    """A difference with its interval, sign shown."""
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def comparison(task: TaskResult, other: str) -> str | None:
    """Who is ahead by AUROC, from the paired interval; None where it cannot be told."""
    pair = task.differences.get(f"medbert-minus-{other}")
    if pair is None or pair.auroc is None:
        return None
    e, name = pair.auroc, model_name(other)
    if other == "oracle":
        return f"The oracle is {'above' if e.high < 0 else 'not above'} Med-BERT, by the difference {signed(e)}."
    if e.low > 0:
        return f"Med-BERT is above {_lower(name)} by AUROC {signed(e)}."
    if e.high < 0:
        return f"{name} wins: Med-BERT is below it by AUROC {signed(e)}."
    return f"Med-BERT and {_lower(name)} cannot be told apart by AUROC, {signed(e)}."


def _lower(name: str) -> str:
    return f"the {name.lower()}" if name == "Champion" else name.lower()


def comparisons_of(task: TaskResult) -> list[str]:
    """One sentence per other model."""
    others = [name.removeprefix("medbert-minus-") for name in task.differences]
    return [words for other in others if (words := comparison(task, other)) is not None]


def headline(evaluation: Evaluation, other: str = LOGISTIC_REGRESSION) -> str:
    """Med-BERT against another model over all outcomes, in one sentence."""
    name = _lower(model_name(other))
    ahead: list[str] = []
    behind: list[str] = []
    open_: list[str] = []
    for task_name, task in evaluation.tasks.items():
        pair = task.differences.get(f"{MEDBERT}-minus-{other}")
        if pair is None or pair.auroc is None:
            continue
        place = ahead if pair.auroc.low > 0 else behind if pair.auroc.high < 0 else open_
        place.append(outcome_name(task_name).lower())
    parts = []
    if ahead:
        parts.append(f"Med-BERT is above {name} for {_and(ahead)}")
    if behind:
        parts.append(f"{name} wins for {_and(behind)}")
    if open_:
        parts.append(f"Med-BERT and {name} cannot be told apart for {_and(open_)}")
    words = "; ".join(parts)
    return words[:1].upper() + words[1:] + "." if words else "No outcome has enough events to compare the models."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def decided(decision: Decision) -> str:
    """Who let a version through, or did not."""
    verb = "let through" if decision.decision == "approved" else "rejected"
    who = "by policy; no person has reviewed it" if decision.by_policy else f"by {decision.decided_by}"
    return f"Version {decision.version} was {verb} {who} ({decision.decided_at:%Y-%m-%d %H:%M} UTC)."


def standing(model: Model) -> tuple[str, str]:
    """(tone, sentence) on where the shown model stands; tone is good, policy, wait or bad."""
    decision, gate = model.decision, model.gate
    if decision is not None and decision.decision == "rejected":
        return "bad", decided(decision)
    if decision is not None:
        role = "" if model.role == "champion" else " It is not the champion."
        return ("policy" if decision.by_policy else "good"), decided(decision) + role
    if gate is None:
        return "wait", "The gate has not judged this model yet, and nobody has decided on it."
    if not gate["passed"]:
        reason = str(gate["reason"]).removeprefix("refused ").removeprefix("refused: ")
        return "bad", f"The gate refused this model: {reason}."
    return "wait", "The gate let this model through to review; nobody has decided on it yet."


def learning(model: Model) -> str | None:
    """What fine-tuning the encoder added to where it began, on the tuning split; None where it is not recorded."""
    record = model.training or {}
    looks = [look["macro_auroc"] for look in record.get("tuning", []) if look["macro_auroc"] is not None]
    if len(looks) < 2:
        return None
    began = "the champion's weights" if record.get("initial") else "its linear path on the codes alone"
    return (
        f"On the tuning split the mean AUROC was {looks[0]:.4f} with {began} and {max(looks[1:]):.4f} "
        "after the encoder was fine-tuned."
    )


def absent_model(night: Night) -> str:
    """Why there is no model in the report."""
    if night.published.problem:
        return "No retraining of this night was evaluated, and the registry of decisions could not be read."
    if night.published.champion is not None:
        return (
            f"No retraining of this night was evaluated. {decided(night.published.champion)} "
            "Its evaluation is not on this machine."
        )
    return "No model has been evaluated and let through yet: the night publishes no risk scores until one is."


def absent_risks(night: Night) -> str:
    """Why no risk scores are shown."""
    return _absent(night, "risk_scores", "no model is champion yet, so nobody was scored")


def absent_interconnections(night: Night) -> str:
    """Why no interconnections are shown."""
    return _absent(night, "disease_interconnections", "they were not computed, or disclosure control left nothing")


def _absent(night: Night, table: str, otherwise: str) -> str:
    published = night.published
    if published.problem:
        return f"What is published could not be read: {published.problem}."
    own = [r for r in published.releases if r.table == table and r.as_of == night.as_of]
    if any(release.current for release in own):
        return f"The release of {night.as_of} holds no rows: disclosure control left nothing."
    current = next((r for r in published.releases if r.table == table and r.current), None)
    if own and current:
        return f"This night's rows are published, but the current release is the one of {current.as_of}."
    if current:
        return f"Nothing of this night is published; the current release is the one of {current.as_of}."
    return f"Nothing is published: {otherwise}."


def limits(night: Night) -> list[str]:
    """What the reader must not conclude."""
    settings = night.settings
    found = [
        "Intervals are 95 % percentile bootstrap over patients: they tell the sampling error of this hospital's "
        "held-out patients, not how the model does elsewhere.",
        "Interconnections are associations in recorded diagnoses. A direction says which diagnosis was recorded first, "
        "not what causes what.",
        f"No count below {settings.min_cell} is shown or published; rare diseases and outcomes are therefore absent.",
        "A risk score is no diagnosis, and no clinical use has been validated.",
    ]
    if settings.hospital == "demo":
        found.insert(0, "The patients are invented: a demo hospital generated from a known process.")
    if night.model is not None and any("oracle" in t.all_days for t in night.model.evaluation.tasks.values()):
        found.append(
            "The oracle knows the process that generated the patients: no model can beat it, so the distance to it is "
            "what better modelling could still gain."
        )
    if night.partition is not None and night.partition.history == "assumed":
        found.append(
            "The source keeps no history of its rows: what was known on a past day is true only from the first "
            "extraction on."
        )
    return found
