"""Sentences of the report, each computed from the figures it speaks of."""

from __future__ import annotations

from ml.evaluation.words import learnt
from ml.publication.report_inputs import Decision, Model, Night


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
    """What fine-tuning the encoder added, on the tuning split; None where it is not recorded."""
    return learnt(model.training or {})


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
