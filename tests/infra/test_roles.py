"""What each role may do in the two databases, and what none may."""

from __future__ import annotations

import psycopg2
import pytest
from psycopg2 import errors

from infra.postgres.migrate import MIGRATIONS, migrate
from infra.postgres.setup import EHR_ROLES, VIGIL_ROLES, bootstrap
from ml.common.db import connect, execute, fetch
from ml.common.errors import ConfigError, SourceError
from ml.settings import Role, Settings, get_settings

DECISION = """
    insert into governance.decisions
        (decision_id, model_name, model_version, decision, decided_by, by_policy, requested_by, reason,
         model_digest, snapshot_digest, metrics_digest, expires_at)
    values (gen_random_uuid(), 'm', 1, 'approved', 'ada', false, 'retraining', 'r', 'a', 'b', 'c', now())
"""
RELEASE = """
    insert into published.releases
        (release_id, table_name, as_of, run_id, token, snapshot_digest, row_count, rows_digest)
    values ('00000000-0000-0000-0000-000000000001', 'risk_scores', '2024-01-01', 'r', 1, 's', 1, 'd')
"""
FORBIDDEN = [
    (Role.EXTRACT, "select * from truth.edges"),
    (Role.LOAD, "select * from truth.edges"),
    (Role.TRUTH, "select * from ehr.person"),
    (Role.EXTRACT, "insert into ehr.person values (2)"),
    (Role.EXTRACT, "create table ehr.mine (a int)"),
    (Role.EXTRACT, "create schema mine"),
    (Role.EXTRACT, "create table public.mine (a int)"),
    (Role.READ, "select * from published.risk_scores"),
    (Role.READ, "select * from published.disease_interconnections"),
    (Role.READ, "select * from restricted.quarantine"),
    (Role.READ, "insert into published.releases select * from published.releases"),
    (Role.READ, "delete from governance.decisions"),
    (Role.READ, "create table public.mine (a int)"),
    (Role.READ, "create temp table mine (a int)"),
    (Role.GOVERN, "update governance.decisions set decision = 'rejected'"),
    (Role.GOVERN, "delete from governance.decisions"),
    (Role.GOVERN, "truncate governance.promotions cascade"),
    (Role.GOVERN, "select * from published.risk_scores"),
    (Role.GOVERN, "select * from restricted.quarantine"),
    (Role.PUBLISH, DECISION),
    (Role.PUBLISH, "update governance.decisions set decision = 'approved'"),
    (Role.PUBLISH, "select * from restricted.quarantine"),
    (Role.PUBLISH, "delete from published.releases"),
    (Role.PUBLISH, "update published.releases set row_count = 0"),
    (Role.PUBLISH, "delete from published.current_releases"),
    (Role.PUBLISH, "delete from published.outcome_surveillance"),
    (Role.READ, "update published.outcome_surveillance set alerts = '{}'"),
    (Role.GOVERN, "select * from published.outcome_surveillance"),
    (Role.QUALITY, "select * from published.risk_scores"),
    (Role.QUALITY, "select * from governance.decisions"),
    (Role.QUALITY, "update restricted.quarantine set reason = ''"),
    (Role.MIGRATE, "create role mine"),
    (Role.READ, "select * from migrations.alembic_version"),
]


@pytest.fixture
def filled(vigil: Settings) -> Settings:
    """A deployment with a row in the EHR, in the truth, and in governance."""
    with connect(Role.LOAD) as connection:
        execute(connection, "create table ehr.person (person_id bigint)")
        execute(connection, "insert into ehr.person values (1)")
    with connect(Role.TRUTH) as connection:
        execute(connection, "create table truth.edges (effect float)")
    with connect(Role.GOVERN) as connection:
        execute(connection, DECISION)
    return vigil


def test_each_role_does_what_its_stage_needs(filled: Settings) -> None:
    with connect(Role.EXTRACT) as connection:
        assert fetch(connection, "select person_id from ehr.person") == [(1,)]
    with connect(Role.TRUTH) as connection:
        assert fetch(connection, "select * from truth.edges") == []
    with connect(Role.QUALITY) as connection:
        assert fetch(connection, "select * from restricted.quarantine") == []
    with connect(Role.PUBLISH) as connection:
        assert fetch(connection, "select decision from governance.decisions") == [("approved",)]
    with connect(Role.READ) as connection:
        assert fetch(connection, "select * from published.current_risk_scores") == []
        assert fetch(connection, "select decided_by from governance.decisions") == [("ada",)]


def _permitted(role: Role, statement: str) -> bool:
    try:
        with connect(role) as connection:
            execute(connection, statement)
    except errors.InsufficientPrivilege:
        return False
    return True


def test_no_role_does_more(filled: Settings) -> None:
    assert [(role, statement) for role, statement in FORBIDDEN if _permitted(role, statement)] == []
    assert _permitted(Role.GOVERN, DECISION)  # the check does see what is permitted


def test_a_release_is_attached_and_read_through_the_current_view_alone(filled: Settings) -> None:
    with connect(Role.PUBLISH) as connection:
        execute(connection, RELEASE)
        execute(connection, "create table published.r1 (like published.risk_scores including all)")
        execute(
            connection,
            """
            insert into published.r1 values
                ('00000000-0000-0000-0000-000000000001', 'p', '2024-01-01', 'death', 365, 0.5, true, null,
                 'm', 1, 'human', 's', now())
            """,
        )
        execute(
            connection,
            "alter table published.risk_scores attach partition published.r1"
            " for values in ('00000000-0000-0000-0000-000000000001')",
        )
    with connect(Role.READ) as connection:
        assert fetch(connection, "select * from published.current_risk_scores") == []
    with connect(Role.PUBLISH) as connection:
        execute(
            connection,
            "insert into published.current_releases"
            " values ('risk_scores', '00000000-0000-0000-0000-000000000001', '2024-01-01', 1)",
        )
    with connect(Role.READ) as connection:
        assert fetch(connection, "select risk from published.current_risk_scores") == [(0.5,)]
    with pytest.raises(errors.InsufficientPrivilege), connect(Role.READ) as connection:
        fetch(connection, "select * from published.r1")


def test_a_role_enters_its_own_database_alone(vigil: Settings) -> None:
    ehr, own = (vigil.dsn(role).rsplit("/", 1)[1] for role in (Role.EXTRACT, Role.READ))
    for roles, database in ((EHR_ROLES, own), (VIGIL_ROLES, ehr)):
        for role in roles:
            dsn = vigil.dsn(role).rsplit("/", 1)[0]
            with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                psycopg2.connect(f"{dsn}/{database}")


def test_nobody_enters_without_the_right_password(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = vigil.dsn(Role.READ).replace("vigil_read:", "vigil_read:x")
    monkeypatch.setenv("VIGIL_READ_DSN", wrong)
    get_settings.cache_clear()
    with pytest.raises(SourceError, match="password authentication failed") as caught, connect(Role.READ):
        pass
    assert wrong not in str(caught.value)


def test_the_fixture_gives_each_test_empty_databases(vigil: Settings) -> None:
    with connect(Role.GOVERN) as connection:
        assert fetch(connection, "select * from governance.decisions") == []
    with connect(Role.LOAD) as connection:
        assert fetch(connection, "select to_regclass('ehr.person')") == [(None,)]


def test_migrating_twice_changes_nothing(vigil: Settings) -> None:
    query = """
        select table_schema, table_name, column_name, data_type from information_schema.columns
        where table_schema in ('restricted', 'governance', 'published', 'migrations') order by 1, 2, 3
    """
    with connect(Role.MIGRATE) as connection:
        before = fetch(connection, query)
    newest = max(file.name[:4] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert migrate() == newest
    with connect(Role.MIGRATE) as connection:
        assert fetch(connection, query) == before != []


def test_a_failed_migration_says_so_in_one_line_and_changes_nothing(
    vigil: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(Role.MIGRATE) as connection:
        execute(connection, "delete from migrations.alembic_version")  # the tables are there, nobody knows whence
    with pytest.raises(SourceError, match='schema "restricted" already exists') as caught:
        migrate()
    assert "\n" not in str(caught.value)
    with connect(Role.MIGRATE) as connection:
        assert fetch(connection, "select * from migrations.alembic_version") == []


def test_bootstrap_refuses_connection_strings_that_the_grants_do_not_fit(vigil: Settings) -> None:
    dsns = {role: vigil.dsn(role) for role in Role}
    with pytest.raises(ConfigError, match="another user than vigil_read"):
        bootstrap("", dsns | {Role.READ: dsns[Role.READ].replace("vigil_read:", "reader:")})
    with pytest.raises(ConfigError, match="different databases"):
        bootstrap("", dsns | {Role.READ: dsns[Role.READ] + "x"})
    with pytest.raises(ConfigError, match="VIGIL_LOAD_DSN is not set"):
        bootstrap("", {role: dsn for role, dsn in dsns.items() if role is not Role.LOAD})
