"""`vigil db`: roles, databases and migrations on a Postgres server of your own."""

from __future__ import annotations

from typing import Annotated

import typer

from ml.settings import Role, get_settings

app = typer.Typer(help="Roles and migrations on a Postgres server; the embedded stack does this by itself.")


@app.command("bootstrap")
def bootstrap_command(
    admin_dsn: Annotated[
        str,
        typer.Option(
            envvar="VIGIL_ADMIN_DSN",
            prompt="connection string of an administrator",
            hide_input=True,
            show_default=False,
            help="of someone who may create roles and databases; asked for where it is not set",
        ),
    ],
) -> None:
    """Create the roles and databases that the VIGIL_*_DSN settings name, and their grants. May be run again."""
    from infra.postgres.setup import bootstrap

    settings = get_settings()
    bootstrap(admin_dsn, {role: settings.dsn(role) for role in Role}, source_schema=settings.source_schema)
    typer.echo("roles, databases and grants are in place; 'vigil db migrate' comes next")


@app.command("migrate")
def migrate_command() -> None:
    """Bring Vigil's own database to the newest revision. May be run again."""
    from infra.postgres.migrate import migrate

    typer.echo(f"the database is at revision {migrate()}")
