"""A throwaway Postgres with an OMOP hospital of any size, for the benchmarks of the data plane."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import ml.sources.omop
from benchmarks.machine import only_settings
from infra.embedded import postgres as embedded
from infra.postgres.migrate import migrate
from infra.postgres.setup import EHR_ROLES, administer, bootstrap, role_name
from ml.common.db import connect, execute
from ml.settings import Role

OMOP = Path(ml.sources.omop.__file__).parent
SQL = Path(__file__).parent / "sql"
LAST_DAY = date(2024, 6, 30)  # of the hospital's history


@dataclass(frozen=True)
class Server:
    """A running server and its directory; settings in the environment point to it."""

    admin_dsn: str = field(repr=False)
    home: Path

    def admin_dsn_of_ehr(self) -> str:
        from psycopg2.extensions import make_dsn

        return make_dsn(self.admin_dsn, dbname="ehr")


@contextmanager
def server(**settings: object) -> Iterator[Server]:
    """A new server with Vigil's roles and tables; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as directory:
        home = Path(directory)
        cluster = embedded.start(home, throwaway=True)
        try:
            dsns = _dsns(cluster.dsn())
            logins = {f"{role.value}_dsn": dsn for role, dsn in dsns.items()}
            only_settings(home=home / "vigil", **logins, **settings)
            bootstrap(cluster.dsn(), dsns)
            migrate(dsns[Role.MIGRATE])
            yield Server(cluster.dsn(), home)
        finally:
            embedded.remove(home)


def _dsns(admin: str) -> dict[Role, str]:
    from psycopg2.extensions import parse_dsn

    place = parse_dsn(admin)
    address = f"{place['host']}:{place['port']}"
    database = {role: "ehr" if role in EHR_ROLES else "vigil" for role in Role}
    return {role: f"postgresql://{role_name(role)}:{secrets.token_hex(16)}@{address}/{database[role]}" for role in Role}


def fill(events: int, patients: int) -> None:
    """A history of about ``events`` diagnoses and measurements, half of each, recorded over four years up to LAST_DAY.

    Keys and indexes as a hospital's: on ids and on recorded_at.
    """
    with connect(Role.LOAD) as connection:
        execute(connection, "set local search_path to ehr")
        execute(connection, (OMOP / "ddl.sql").read_text())
        half = max(events - 2 * patients, 0) // 2
        execute(connection, (SQL / "big_hospital.sql").read_text(), {"rows": half, "patients": patients})
        execute(connection, (OMOP / "keys.sql").read_text())
    with administer(os.environ["VIGIL_LOAD_DSN"]) as owner, owner.cursor() as cursor:
        cursor.execute("vacuum analyze")  # as autovacuum does


def add_night(day: date, rows: int, patients: int) -> None:
    """What one more day brings: new rows, and a correction to one row in fifty."""
    with connect(Role.LOAD) as connection:
        execute(connection, "set local search_path to ehr")
        query = (SQL / "big_hospital_night.sql").read_text()
        execute(connection, query, {"rows": rows // 2, "patients": patients, "day": day})
