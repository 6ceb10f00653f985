"""Decisions and promotions: nothing becomes champion, or stays it, without a valid decision on exactly that model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml.cohorts.runs import TrainingRun
from ml.common.db import connect, execute, fetch
from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.registry import champion, decide_by_policy, decision_for, judged, promote, register, rollback, warm_start
from ml.registry.review import approve, dossier, reject, reviews
from ml.registry.store import model_digest
from ml.registry.tracking import connected
from ml.settings import Role, Settings, get_settings
from tests.ml.invented_runs import estimate, make_run, task_result


def admit(seed: int) -> int:
    """Register, approve and promote a model that was compared with the champion."""
    version = register(make_run(task_result(champion_difference=estimate(0.1)), seed=seed)).version
    approve(version, "dr. a", "looks right")
    promote(version)
    return version


def expire(version: int) -> None:
    """Age a decision as its owner, which no role of the application could do."""
    with connect(Role.MIGRATE) as connection:
        execute(
            connection,
            "update governance.decisions set decided_at = now() - interval '20 days',"
            " expires_at = now() - interval '6 days' where model_version = %s",
            (version,),
        )


def set_alias(settings: Settings, version: int) -> None:
    with connected() as client:
        client.set_registered_model_alias(settings.model_name, "champion", str(version))


def weights_in_mlflow(artifacts: Path, run: TrainingRun) -> Path:
    content = (run.finetuned / "model.safetensors").read_bytes()
    (found,) = [file for file in artifacts.rglob("model.safetensors") if file.read_bytes() == content]
    return found


def states() -> dict[int, str]:
    return {review.model.version: review.state for review in reviews()}


def test_a_model_waits_is_approved_and_becomes_champion(tracked: Settings) -> None:
    run = make_run()
    version = register(run).version
    assert decision_for(version) is None
    assert champion() is None
    assert warm_start() is None
    assert states() == {version: "waiting"}
    decision = approve(version, "dr. a", "looks right")
    assert decision_for(version) == decision
    assert states() == {version: "approved"}
    assert promote(version).moved
    found = champion()
    assert found is not None
    assert (found.version, found.name, found.decision, found.decided_by) == (version, run.name, "human", "dr. a")
    assert found.decision_id == decision.decision_id
    assert model_digest(found.finetuned) == found.digests.model
    assert warm_start() == found.finetuned
    assert judged(run)
    assert states() == {version: "champion"}


def test_promoting_twice_changes_nothing(tracked: Settings) -> None:
    version = admit(1)
    assert not promote(version).moved
    with connect(Role.READ) as connection:
        assert fetch(connection, "select count(*) from governance.promotions") == [(1,)]


def test_a_promotion_killed_before_the_alias_moved_is_finished(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(make_run()).version
    approve(version, "dr. a", "looks right")

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ml.registry.champions._set_champion", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(version)
    assert champion() is None
    promote(version)
    found = champion()
    assert found is not None
    assert found.version == version
    with connect(Role.READ) as connection:
        assert fetch(connection, "select count(*) from governance.promotions") == [(1,)]


def test_nobody_decides_on_his_own_request(tracked: Settings) -> None:
    version = register(make_run()).version
    for name in ("retraining", " Retraining "):
        with pytest.raises(RefusedError, match="cannot give it"):
            approve(version, name, "mine")
    assert decision_for(version) is None


@pytest.mark.parametrize(("name", "reason", "words"), [("dr. a", " ", "a reason"), ("", "fine", "a name")])
def test_a_decision_needs_a_name_and_a_reason(tracked: Settings, name: str, reason: str, words: str) -> None:
    version = register(make_run()).version
    with pytest.raises(ConfigError, match=words):
        approve(version, name, reason)


def test_a_person_cannot_pass_for_the_policy(tracked: Settings) -> None:
    with pytest.raises(RefusedError, match="not a person"):
        approve(register(make_run()).version, "policy:auto", "fine")


def test_deciding_twice_is_refused(tracked: Settings) -> None:
    version = register(make_run()).version
    reject(version, "dr. a", "too few cases")
    with pytest.raises(RefusedError, match=r"decided already: rejected by dr\. a"):
        approve(version, "dr. b", "I like it")
    assert states() == {version: "rejected"}
    with pytest.raises(RefusedError, match="was rejected"):
        promote(version)


def test_a_model_without_a_decision_is_not_promoted(tracked: Settings) -> None:
    version = register(make_run()).version
    with pytest.raises(RefusedError, match="no decision"):
        promote(version)


def test_an_expired_approval_does_not_count_and_can_be_given_anew(tracked: Settings) -> None:
    version = register(make_run()).version
    approve(version, "dr. a", "looks right")
    expire(version)
    assert decision_for(version) is None
    with pytest.raises(RefusedError, match="expired"):
        promote(version)
    assert states() == {version: "waiting"}
    approve(version, "dr. a", "still looks right")
    assert promote(version).moved


def test_a_champion_promoted_in_time_stays_when_its_approval_expires(tracked: Settings) -> None:
    version = register(make_run()).version
    approve(version, "dr. a", "looks right")
    promote(version)
    with connect(Role.MIGRATE) as connection:
        execute(
            connection,
            "update governance.decisions set expires_at = (select max(promoted_at) from governance.promotions)",
        )
    found = champion()
    assert found is not None
    assert found.version == version


def test_a_model_the_gate_refused_cannot_be_approved(tracked: Settings) -> None:
    version = register(make_run(task_result(events=3))).version
    assert states() == {version: "refused by the gate"}
    with pytest.raises(RefusedError, match="does not wait"):
        approve(version, "dr. a", "let it pass")
    with connected() as client:  # not even with a forged tag and alias: the gate's arithmetic is done again
        client.set_model_version_tag(tracked.model_name, str(version), "vigil.gate", "passed")
        client.set_registered_model_alias(tracked.model_name, "challenger", str(version))
    with pytest.raises(RefusedError, match="want of evidence"):
        approve(version, "dr. a", "let it pass")


def test_weights_changed_after_the_approval_are_refused_at_promotion(tracked: Settings, mlflow_artifacts: Path) -> None:
    run = make_run(seed=104)  # the server's copy of these weights is this test's alone
    version = register(run).version
    approve(version, "dr. a", "looks right")
    weights = weights_in_mlflow(mlflow_artifacts, run)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RefusedError, match="the model in MLflow is not what was registered"):
        promote(version)
    assert champion() is None


def test_weights_and_tag_changed_together_find_no_decision(tracked: Settings, mlflow_artifacts: Path) -> None:
    run = make_run(seed=105)
    version = register(run).version
    approve(version, "dr. a", "looks right")
    weights = weights_in_mlflow(mlflow_artifacts, run)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with connected() as client:
        client.set_model_version_tag(
            tracked.model_name, str(version), "vigil.model_digest", model_digest(weights.parent)
        )
    with pytest.raises(RefusedError, match="made on another model"):
        promote(version)


def test_a_local_copy_that_was_changed_is_fetched_again(tracked: Settings) -> None:
    admit(1)
    found = champion()
    assert found is not None
    weights = found.finetuned / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"changed")
    assert champion() == found
    assert weights.read_bytes() == good


def test_an_alias_moved_by_hand_makes_no_champion(tracked: Settings) -> None:
    first, second = admit(1), admit(2)
    set_alias(tracked, first)  # approved once, but replaced since
    with pytest.raises(RefusedError, match=f"the last recorded promotion is of version {second}"):
        champion()
    third = register(make_run(task_result(champion_difference=estimate(0.1)), seed=3)).version
    set_alias(tracked, third)
    with pytest.raises(RefusedError, match="no decision"):
        champion()
    assert rollback("dr. a").version == second  # puts the alias right, and does no more
    found = champion()
    assert found is not None
    assert found.version == second


def test_rollback_brings_the_previous_champion_back_and_a_late_task_does_not_undo_it(tracked: Settings) -> None:
    first, second = admit(1), admit(2)
    assert rollback("dr. a").version == first
    found = champion()
    assert found is not None
    assert found.version == first
    with pytest.raises(RefusedError, match="was champion before"):
        promote(second)
    with pytest.raises(NotFoundError, match="no earlier champion"):
        rollback("dr. a")
    with connect(Role.READ) as connection:
        kinds = fetch(
            connection, "select model_version, kind, promoted_by from governance.promotions order by promoted_at"
        )
    assert kinds == [(first, "promote", "retraining"), (second, "promote", "retraining"), (first, "rollback", "dr. a")]
    third = admit(3)
    assert rollback("dr. a").version == first
    assert states()[third] == "retired"


def test_the_dossier_shows_what_a_person_needs(tracked: Settings) -> None:
    version = register(make_run()).version
    found = dossier(version)
    assert found.gate.passed
    assert found.evaluation.tasks["heart_failure"].all_days["medbert"].auroc == estimate(0.8)
    assert found.review.state == "waiting"
    with pytest.raises(NotFoundError, match="no version 99"):
        dossier(99)


def use_auto(monkeypatch: pytest.MonkeyPatch, embedded: str) -> None:
    monkeypatch.setenv("VIGIL_REVIEW", "auto")
    monkeypatch.setenv("VIGIL_EMBEDDED", embedded)
    get_settings.cache_clear()


def test_policy_lets_a_model_through_and_says_that_no_person_did(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_auto(monkeypatch, "true")
    version = register(make_run()).version
    decision = decide_by_policy(version)
    assert decide_by_policy(version) == decision
    assert (decision.by_policy, decision.decided_by) == (True, "policy:auto")
    promote(version)
    found = champion()
    assert found is not None
    assert found.decision == "policy"
    assert "no person has reviewed it" in found.sentence


def test_policy_is_refused_off_the_embedded_stack(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    version = register(make_run()).version
    with pytest.raises(ConfigError, match="a person decides here"):
        decide_by_policy(version)
    use_auto(monkeypatch, "false")
    with pytest.raises(ConfigError, match="embedded stack alone"):
        decide_by_policy(version)
    assert decision_for(version) is None


def test_policy_does_not_overrule_a_person(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    version = register(make_run()).version
    reject(version, "dr. a", "no")
    use_auto(monkeypatch, "true")
    assert not decide_by_policy(version).approved
