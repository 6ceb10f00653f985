"""Releases: doubled, overtaken, backfilled or killed publications never show a wrong row as current."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml.common.db import connect, execute, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.publication import releases, staging
from ml.publication.fences import acquire
from ml.publication.releases import all_releases, attach, find_same, move_pointer, release, rollback
from ml.publication.types import INTERCONNECTIONS, RISK_SCORES, Origin, PublishedTable, Release
from ml.settings import Role, Settings

DAY, LATER, EARLIER = date(2020, 1, 10), date(2020, 1, 11), date(2020, 1, 9)
SNAPSHOT = "5" * 64
MADE = datetime(2020, 1, 11, 2, tzinfo=UTC)


def interconnections(as_of: date = DAY, weight: float = 0.25, **changed: object) -> pa.Table:
    """Two pairs; ``changed`` replaces values of the second."""
    good: dict[str, object] = {
        "as_of": as_of,
        "method": "jaccard",
        "source_code": "ICD10CM//E11",
        "target_code": "ICD10CM//I10",
        "directed": False,
        "weight": weight,
        "weight_meaning": 'a "share", of patients',
        "ci_low": None,
        "ci_high": None,
        "p_adjusted": None,
        "significant": None,
        "n_source": 100,
        "n_target": 200,
        "n_both": 60,
        "snapshot_digest": SNAPSHOT,
    }
    other = good | {"target_code": "ICD10CM//I50", "ci_low": 0.1, "ci_high": 0.3} | changed
    columns = {name: [good[name], other[name]] for name in good}
    kinds = {"ci_low": pa.float64(), "ci_high": pa.float64(), "p_adjusted": pa.float64(), "significant": pa.bool_()}
    return pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})


def risks(**changed: object) -> pa.Table:
    """One patient in scope and one out of it; ``changed`` replaces values of the first."""
    good: dict[str, object] = {
        "pseudonym": "a1" * 16,
        "as_of": DAY,
        "outcome": "heart_failure",
        "horizon_days": 365,
        "risk": 0.2,
        "in_scope": True,
        "scope_reason": None,
        "model_name": "vigil-risk",
        "model_version": 3,
        "decision": "human",
        "snapshot_digest": SNAPSHOT,
    }
    out = good | {"pseudonym": "b2" * 16, "risk": None, "in_scope": False, "scope_reason": "under 18"}
    first = good | changed
    return pa.table({name: pa.array([first[name], out[name]]) for name in good})


def origin(as_of: date = DAY, **more: object) -> Origin:
    return Origin(as_of, "run-1", SNAPSHOT, MADE, {}, **more)  # type: ignore[arg-type]


def publish(rows: pa.Table, as_of: date = DAY) -> Release:
    return release(INTERCONNECTIONS, rows, origin(as_of), {})


def publish_risks(rows: pa.Table, subjects: int = 2) -> Release:
    facts = {"model_name": "vigil-risk", "decision": "human"}
    return release(RISK_SCORES, rows, Origin(DAY, "run-1", SNAPSHOT, MADE, facts, 3), {"subjects": subjects})


def current_weights() -> list[float]:
    with connect(Role.READ) as connection:
        query = "select weight from published.current_disease_interconnections order by weight"
        return [weight for (weight,) in fetch(connection, query)]


def tables_in_published() -> set[str]:
    with connect(Role.PUBLISH) as connection:
        return {name for (name,) in fetch(connection, "select tablename from pg_tables where schemaname = 'published'")}


def count(table: str) -> int:
    with connect(Role.PUBLISH) as connection:
        queries = {
            "rows": "select count(*) from published.disease_interconnections",
            "releases": "select count(*) from published.releases",
        }
        return int(fetch(connection, queries[table])[0][0])


def test_published_rows_are_current_and_readable_by_readers(vigil: Settings) -> None:
    made = publish(interconnections())
    assert (made.new, made.current, made.row_count) == (True, True, 2)
    with connect(Role.READ) as connection:
        rows = fetch(
            connection,
            "select target_code, weight, weight_meaning, ci_low, p_adjusted, n_both, as_of, computed_at"
            " from published.current_disease_interconnections order by 1",
        )
    meaning = 'a "share", of patients'
    assert rows == [
        ("ICD10CM//I10", 0.25, meaning, None, None, 60, DAY, MADE),
        ("ICD10CM//I50", 0.25, meaning, 0.1, None, 60, DAY, MADE),
    ]


def test_readers_see_no_release_that_is_not_current(vigil: Settings) -> None:
    publish(interconnections())
    with connect(Role.READ) as connection, pytest.raises(Exception, match="permission denied"):
        fetch(connection, "select * from published.disease_interconnections")


def test_the_same_rows_are_published_once_in_whatever_order_they_come(vigil: Settings) -> None:
    first = publish(interconnections())
    again = publish(interconnections().take(pa.array([1, 0])))
    assert (again.release_id, again.new, again.current) == (first.release_id, False, True)
    assert (count("rows"), count("releases")) == (2, 1)


def test_other_rows_of_the_same_day_replace_what_is_current(vigil: Settings) -> None:
    publish(interconnections())
    second = publish(interconnections(weight=0.5))
    assert second.current
    assert current_weights() == [0.5, 0.5]
    assert publish(interconnections()).current  # and what is published last is current, even if it was there before
    assert current_weights() == [0.25, 0.25]


def test_a_backfilled_day_makes_its_release_and_moves_nothing_back(vigil: Settings) -> None:
    publish(interconnections(LATER), LATER)
    backfilled = publish(interconnections(EARLIER, weight=0.9), EARLIER)
    assert (backfilled.new, backfilled.current) == (True, False)
    assert current_weights() == [0.25, 0.25]
    assert count("releases") == 2


def test_a_zombie_with_a_stale_token_can_neither_attach_nor_move_the_pointer(vigil: Settings) -> None:
    zombie = acquire("disease_interconnections", DAY, "zombie")
    content = staging.to_csv(INTERCONNECTIONS, interconnections(weight=0.9))
    release_id = "00000000-0000-4000-8000-000000000001"
    staging.stage(INTERCONNECTIONS, zombie, origin(), release_id, content)
    rival = acquire("disease_interconnections", DAY, "rival")
    with pytest.raises(RefusedError, match=f"token {zombie.token} is stale"):
        attach(INTERCONNECTIONS, zombie, origin(), release_id, 2, "d" * 64)
    assert count("releases") == 0
    staging.drop(zombie)
    made = publish(interconnections())
    with pytest.raises(RefusedError, match=f"token {rival.token} is stale"):
        move_pointer(made, rival)
    assert current_weights() == [0.25, 0.25]


def test_a_zombie_that_attached_in_time_cannot_make_its_rows_current(vigil: Settings) -> None:
    zombie = acquire("disease_interconnections", DAY, "zombie")
    content = staging.to_csv(INTERCONNECTIONS, interconnections(weight=0.9))
    release_id = "00000000-0000-4000-8000-000000000002"
    staging.stage(INTERCONNECTIONS, zombie, origin(), release_id, content)
    attached = attach(INTERCONNECTIONS, zombie, origin(), release_id, 2, "d" * 64)
    publish(interconnections())
    with pytest.raises(RefusedError, match="stale"):
        move_pointer(attached, zombie)
    assert current_weights() == [0.25, 0.25]


def test_a_publication_killed_between_attach_and_pointer_is_finished(
    vigil: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> Release:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(releases, "move_pointer", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(interconnections())
    assert current_weights() == []
    finished = publish(interconnections())
    assert (finished.new, finished.current) == (False, True)
    assert (count("rows"), count("releases")) == (2, 1)


def test_the_next_publication_drops_what_a_dead_one_staged(vigil: Settings) -> None:
    dead = acquire("disease_interconnections", EARLIER, "dead")
    rows = staging.to_csv(INTERCONNECTIONS, interconnections(EARLIER))
    staging.stage(INTERCONNECTIONS, dead, origin(EARLIER), "00000000-0000-4000-8000-000000000003", rows)
    assert staging.staging_name(dead) in tables_in_published()
    publish(interconnections())  # of another day
    assert not [name for name in tables_in_published() if name.startswith("staging")]


def test_a_living_publication_keeps_its_staged_rows(vigil: Settings) -> None:
    fence = acquire("disease_interconnections", EARLIER, "alive")
    with connect(Role.PUBLISH) as alive:
        staging.hold(alive, fence)
        rows = staging.to_csv(INTERCONNECTIONS, interconnections(EARLIER))
        staging.stage(INTERCONNECTIONS, fence, origin(EARLIER), "00000000-0000-4000-8000-000000000004", rows)
        publish(interconnections())
        assert staging.staging_name(fence) in tables_in_published()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n_both": 10}, "1 rows with a small count"),
        ({"n_source": 3, "n_both": 3}, "1 rows with a small count"),
        ({"n_both": 150}, "with impossible counts"),
        ({"as_of": EARLIER}, "of another release or day"),
        ({"snapshot_digest": "6" * 64}, "of another snapshot"),
        ({"weight": float("nan")}, "with an impossible weight"),
        ({"weight": float("inf")}, "with an impossible weight"),
        ({"ci_low": 0.9}, "with an impossible weight"),
        ({"p_adjusted": 1.5}, "with an impossible p value"),
        ({"target_code": "ICD10CM//E11"}, "without a pair"),
        ({"weight": None}, "the database refused rows"),
        ({"target_code": "ICD10CM//I10"}, "the database refused rows"),
    ],
)
def test_the_audit_refuses_bad_rows_whoever_made_them(vigil: Settings, changed: dict[str, object], words: str) -> None:
    publish(interconnections(EARLIER), EARLIER)
    with pytest.raises(RefusedError, match=words):
        publish(interconnections(**({"weight": 0.9} | changed)))  # type: ignore[arg-type]
    assert current_weights() == [0.25, 0.25]
    assert count("releases") == 1
    assert not [name for name in tables_in_published() if name.startswith("staging")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pseudonym": "4711"}, "without a pseudonym"),
        ({"pseudonym": "4711".rjust(32, "0")}, "without a pseudonym"),
        ({"risk": 1.5}, "the database refused"),
        ({"risk": None}, "the database refused"),
        ({"model_version": 4}, "of another model or snapshot"),
        ({"decision": "policy"}, "of another model or snapshot"),
        ({"horizon_days": 0}, "without an outcome"),
    ],
)
def test_the_audit_refuses_bad_risks(vigil: Settings, changed: dict[str, object], words: str) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        publish_risks(risks(**changed))
    assert "4711" not in str(caught.value)
    assert count("releases") == 0
    assert publish_risks(risks()).current


def test_the_audit_misses_no_subject(vigil: Settings) -> None:
    with pytest.raises(RefusedError, match="2 subjects instead of 3"):
        publish_risks(risks(), subjects=3)


def test_a_release_without_any_row_is_a_release(vigil: Settings) -> None:
    assert publish(interconnections().slice(0, 0)).row_count == 0
    assert current_weights() == []


def test_rollback_goes_back_one_release_at_a_time_and_the_next_night_goes_on(vigil: Settings) -> None:
    publish(interconnections(EARLIER, weight=0.1), EARLIER)
    publish(interconnections(weight=0.2))
    publish(interconnections(weight=0.3))
    assert rollback("disease_interconnections", "dr. a").current
    assert current_weights() == [0.2, 0.2]
    rollback("disease_interconnections", "dr. a")
    assert current_weights() == [0.1, 0.1]
    with pytest.raises(NotFoundError, match="no release before"):
        rollback("disease_interconnections", "dr. a")
    publish(interconnections(LATER, weight=0.4), LATER)
    assert current_weights() == [0.4, 0.4]
    assert count("releases") == 4


def test_rollback_of_an_unknown_table_says_which_there_are(vigil: Settings) -> None:
    with pytest.raises(NotFoundError, match="risk_scores"):
        rollback("patients", "dr. a")


def test_readers_can_list_releases_and_see_which_is_current(vigil: Settings) -> None:
    publish(interconnections())
    publish(interconnections(weight=0.5))
    assert [one.current for one in all_releases()] == [True, False]


def test_digests_ignore_order_and_time_but_no_value() -> None:
    def content(table: PublishedTable, rows: pa.Table) -> bytes:
        return staging.to_csv(table, rows)

    shuffled = interconnections().take(pa.array([1, 0]))
    assert content(INTERCONNECTIONS, shuffled) == content(INTERCONNECTIONS, interconnections())
    assert content(INTERCONNECTIONS, interconnections(weight=0.26)) != content(INTERCONNECTIONS, interconnections())
    assert content(RISK_SCORES, risks(risk=0.21)) != content(RISK_SCORES, risks())


def test_only_the_publisher_may_publish(vigil: Settings) -> None:
    for role in (Role.READ, Role.GOVERN, Role.QUALITY):
        with connect(role) as connection, pytest.raises(Exception, match="permission denied"):
            execute(connection, "update published.current_releases set as_of = '2000-01-01'")
    publish(interconnections())
    assert find_same(INTERCONNECTIONS, origin(), "0" * 64) is None
