"""`vigil stack`: the one-machine stack from the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ml.settings import get_settings

app = typer.Typer(help="The embedded stack: Postgres, MLflow and Airflow on this machine.", no_args_is_help=True)


@app.command()
def up() -> None:
    """Start what does not run yet; the servers stay up when the terminal closes."""
    from infra.embedded import stack

    console = Console()

    def tell(name: str, state: str, seconds: float) -> None:
        if state == "ready":
            console.print(f"[green]✓[/] {name} [dim]{seconds:.1f} s[/]", highlight=False)

    with console.status("starting Postgres, MLflow and Airflow"):
        found = stack.start(get_settings().home, tell=tell)
    for service in found.services:
        if service.url:
            console.print(f"  {service.name}: {service.url}", highlight=False)


@app.command()
def down() -> None:
    """Stop every process of the stack, running tasks included."""
    from infra.embedded import stack

    stack.stop(get_settings().home)
    Console().print("stopped")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show each server: whether it is healthy, its process, its address. Exits with 1 where one is not healthy."""
    from infra.embedded import stack

    found = stack.status(get_settings().home)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "healthy": found.healthy}, indent=2))
    elif not found.services:
        Console().print(f"no stack was ever started in {found.home}; 'vigil stack up' starts one")
    else:
        Console().print(_table(found.services))
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Stop the stack and delete its state: databases, models, event log, reports and secrets."""
    from infra.embedded import stack

    home = get_settings().home
    if not yes:
        typer.confirm(f"Delete everything Vigil keeps in {home}?", abort=True)
    stack.clean(home)
    Console().print(f"deleted the state in {home}")


def _table(services: tuple[object, ...]) -> Table:
    from infra.embedded.stack import ServiceStatus

    table = Table(box=None, pad_edge=False)
    for column in ("", "server", "pid", "memory", "address", "log"):
        table.add_column(column, overflow="fold")
    for service in services:
        assert isinstance(service, ServiceStatus)
        glyph = "[green]✓[/]" if service.healthy else "[red]✗[/]"
        size = f"{service.memory / 1e6:.0f} MB" if service.pid else ""
        table.add_row(glyph, service.name, str(service.pid or ""), size, service.url or "", service.log)
    return table
