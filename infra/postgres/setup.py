"""Roles and databases, made as an administrator; what exists is left or brought up to date, never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password, make_dsn, parse_dsn

from ml.common.db import Connection
from ml.common.errors import ConfigError, SourceError
from ml.settings import Role

HERE = Path(__file__).parent
EHR_ROLES = (Role.LOAD, Role.EXTRACT, Role.TRUTH)
VIGIL_ROLES = (Role.MIGRATE, Role.QUALITY, Role.PUBLISH, Role.GOVERN, Role.READ)


def role_name(role: Role) -> str:
    """Name of a role in Postgres; the grants in the migrations name them so."""
    return f"vigil_{role.value}"


@contextmanager
def administer(dsn: str) -> Iterator[Connection]:
    """A connection that commits each statement, as CREATE DATABASE demands.

    Raises:
        SourceError: the server refuses.
    """
    try:
        connection = psycopg2.connect(dsn, connect_timeout=10)
    except psycopg2.OperationalError as error:
        reason = (str(error).strip().splitlines() or ["no answer"])[-1].split("FATAL:")[-1].strip()
        raise SourceError(f"cannot connect to Postgres as administrator ({reason})", "check the admin DSN") from None
    try:
        connection.autocommit = True
        yield connection
    finally:
        connection.close()


def bootstrap(admin_dsn: str, dsns: Mapping[Role, str], *, source_schema: str = "ehr") -> None:
    """Make the roles and databases that the roles' connection strings name, and grant what each role needs.

    Args:
        admin_dsn: someone who may create roles and databases.
        dsns: connection string per role, with user and password; the user must be ``vigil_<role>``.
        source_schema: schema of the EHR tables.

    Raises:
        ConfigError: a connection string lacks something or names another user.
        SourceError: the server cannot be reached.
    """
    parsed = {role: _parsed(role, dsns.get(role)) for role in Role}
    ehr, vigil = (_common(parsed, roles) for roles in (EHR_ROLES, VIGIL_ROLES))
    with administer(admin_dsn) as admin:
        # Where the administrator is no superuser: let him act as the roles he creates.
        _run(admin, sql.SQL("set createrole_self_grant = 'set, inherit'"))
        create_roles(admin, {role_name(role): part["password"] for role, part in parsed.items()})
        create_database(admin, ehr, connect=map(role_name, EHR_ROLES))
        create_database(admin, vigil, owner=role_name(Role.MIGRATE), connect=map(role_name, VIGIL_ROLES))
    with administer(make_dsn(admin_dsn, dbname=ehr)) as admin:
        _run(admin, sql.SQL((HERE / "ehr.sql").read_text()).format(schema=sql.Identifier(source_schema)))
    with administer(make_dsn(admin_dsn, dbname=vigil)) as admin:
        _run(admin, sql.SQL((HERE / "vigil.sql").read_text()))


def create_roles(admin: Connection, passwords: Mapping[str, str]) -> None:
    """Create login roles or set their passwords; only the scram verifier travels."""
    for name, password in sorted(passwords.items()):
        verifier = encrypt_password(password, name, scope=admin, algorithm="scram-sha-256")
        exists = _exists(admin, "select 1 from pg_roles where rolname = %s", name)
        statement = sql.SQL("alter role {} login password {}" if exists else "create role {} login password {}")
        _run(admin, statement.format(sql.Identifier(name), sql.Literal(verifier)))


def create_database(
    admin: Connection,
    name: str,
    *,
    owner: str | None = None,
    connect: Iterable[str] = (),
    template: str = "template0",
) -> None:
    """Create a database that only the named roles may enter."""
    database = sql.Identifier(name)
    if not _exists(admin, "select 1 from pg_database where datname = %s", name):
        _run(admin, sql.SQL("create database {} template {}").format(database, sql.Identifier(template)))
    if owner:
        _run(admin, sql.SQL("alter database {} owner to {}").format(database, sql.Identifier(owner)))
    _run(admin, sql.SQL("revoke all on database {} from public").format(database))
    for role in connect:
        _run(admin, sql.SQL("grant connect on database {} to {}").format(database, sql.Identifier(role)))


def drop_database(admin: Connection, name: str) -> None:
    """Drop a database and end its sessions (tests)."""
    _run(admin, sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


_FORM = "write it as postgresql://user:password@host/database"


def _parsed(role: Role, dsn: str | None) -> dict[str, str]:
    setting = f"VIGIL_{role.value.upper()}_DSN"
    if not dsn:
        raise ConfigError(f"{setting} is not set", "set the connection string of every role")
    try:
        parts = {str(key): str(value) for key, value in parse_dsn(dsn).items()}
    except psycopg2.ProgrammingError:
        raise ConfigError(f"{setting} is no connection string", _FORM) from None
    for need in ("user", "password", "dbname"):
        if need not in parts:
            raise ConfigError(f"{setting} names no {need}", _FORM)
    if parts["user"] != role_name(role):
        raise ConfigError(f"{setting} names another user than {role_name(role)}", "the grants go to roles of that name")
    return parts


def _common(parsed: Mapping[Role, Mapping[str, str]], roles: tuple[Role, ...]) -> str:
    """The one database that the roles share."""
    names = {parsed[role]["dbname"] for role in roles}
    if len(names) != 1:
        settings = ", ".join(f"VIGIL_{role.value.upper()}_DSN" for role in roles)
        raise ConfigError(f"{settings} name different databases", "they share one")
    return names.pop()


def _exists(admin: Connection, query: str, name: str) -> bool:
    with admin.cursor() as cursor:
        cursor.execute(query, (name,))
        return cursor.fetchone() is not None


def _run(admin: Connection, statement: sql.Composable) -> None:
    with admin.cursor() as cursor:
        cursor.execute(statement)
