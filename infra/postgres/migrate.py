"""Migrations of Vigil's own database, driven in process by alembic.

A revision in ``migrations/versions`` runs the ``.sql`` file of its name. The table of versions lies in schema
``migrations``, away from what a role may see.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from ml.common.errors import SourceError
from ml.settings import Role, get_settings

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA = "migrations"
_LOCK = 8_242_021  # two migrations at once: the second waits, then finds nothing to do


def migrate(dsn: str | None = None) -> str:
    """Bring the database to the newest revision; the revision.

    Args:
        dsn: of role ``migrate``; the settings' by default.

    Raises:
        ConfigError: no connection string is set.
        SourceError: the database cannot be reached or holds tables of unknown origin.
    """
    import psycopg2
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy.exc import SQLAlchemyError

    target = dsn or get_settings().dsn(Role.MIGRATE)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # A creator keeps the password out of any URL that an error might show.
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(target), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            connection.execute(text("create schema if not exists migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (psycopg2.Error, SQLAlchemyError) as error:
        reason = (str(getattr(error, "orig", error)).strip().splitlines() or ["no message"])[0]
        raise SourceError(f"migration failed, nothing was changed ({reason})", "check VIGIL_MIGRATE_DSN") from None
    head = ScriptDirectory.from_config(config).get_current_head()
    return str(head)
