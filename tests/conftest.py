"""Fixtures of all tests: one real Postgres for the session, and a fresh Vigil for each test that asks for it."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ml.settings import Role, Settings, get_settings

_numbers = itertools.count(1)


@dataclass(frozen=True)
class TestServer:
    """The session's Postgres, with two template databases from which each test's own are copied."""

    __test__ = False

    admin_dsn: str = field(repr=False)
    passwords: Mapping[Role, str] = field(repr=False)

    def dsn(self, role: Role, database: str) -> str:
        """Connection string of a role to a database of this server."""
        from psycopg2.extensions import parse_dsn

        from infra.postgres.setup import role_name

        place = parse_dsn(self.admin_dsn)
        login = f"{role_name(role)}:{self.passwords[role]}"
        return f"postgresql://{login}@{place['host']}:{place['port']}/{database}"

    def dsns(self, ehr: str, vigil: str) -> dict[Role, str]:
        """Connection strings of all roles."""
        from infra.postgres.setup import EHR_ROLES

        return {role: self.dsn(role, ehr if role in EHR_ROLES else vigil) for role in Role}


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """One embedded server for all tests, roles and migrated templates in it; gone with the session."""
    from infra.embedded import postgres as embedded
    from infra.postgres.migrate import migrate
    from infra.postgres.setup import bootstrap

    with tempfile.TemporaryDirectory(prefix="vigil-test-") as directory:
        home = Path(directory)
        cluster = embedded.start(home, throwaway=True)
        try:
            server = TestServer(cluster.dsn(), {role: secrets.token_hex(16) for role in Role})
            bootstrap(server.admin_dsn, server.dsns("ehr_template", "vigil_template"))
            migrate(server.dsn(Role.MIGRATE, "vigil_template"))
            yield server
        finally:
            embedded.remove(home)


@pytest.fixture
def vigil(postgres: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a fresh deployment: two new databases, a new state directory, every ``VIGIL_*`` variable set.

    ``ml.common.db.connect(Role.X)`` just works. Variables of the caller's own deployment are taken away first.
    """
    from infra.postgres.setup import EHR_ROLES, VIGIL_ROLES, administer, create_database, drop_database, role_name

    number = next(_numbers)
    ehr, own = f"ehr_{number}", f"vigil_{number}"
    with administer(postgres.admin_dsn) as admin:
        create_database(admin, ehr, template="ehr_template", connect=map(role_name, EHR_ROLES))
        create_database(
            admin,
            own,
            template="vigil_template",
            owner=role_name(Role.MIGRATE),
            connect=map(role_name, VIGIL_ROLES),
        )
    for name in [name for name in os.environ if name.startswith("VIGIL_") and name != "VIGIL_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIGIL_HOME", str(tmp_path / "vigil"))
    monkeypatch.setenv("VIGIL_EMBEDDED", "true")
    monkeypatch.setenv("VIGIL_PSEUDONYM_KEY", "0123456789abcdef" * 4)
    for role, dsn in postgres.dsns(ehr, own).items():
        monkeypatch.setenv(f"VIGIL_{role.value.upper()}_DSN", dsn)
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()
    with administer(postgres.admin_dsn) as admin:
        drop_database(admin, ehr)
        drop_database(admin, own)


@pytest.fixture(scope="session")
def records() -> Path:
    """Directory of the real records that some tests need; skips where ``VIGIL_TEST_DATA`` names none."""
    place = os.environ.get("VIGIL_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("VIGIL_TEST_DATA names no directory: tests on real records are skipped")
    return Path(place)
