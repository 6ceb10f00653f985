"""``vigil erase``: the right to erasure."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer


def erase(
    subject: Annotated[int, typer.Option("--subject", help="the patient's id in the source (not the pseudonym)")],
    reason: Annotated[str, typer.Option("--reason", help="kept in governance.erasures; name no patient")],
    name: Annotated[str, typer.Option("--as", help="who erases; default: the account")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Erase a patient from everything that Vigil keeps. It cannot be undone.

    Gone after it: the patient's rows in the event log, token stores, labels, predictions and scores; rows in
    quarantine; risk scores in every release that is kept. Snapshots that held the patient get a new digest, old and new
    are recorded in governance. Models that saw the patient are flagged in the registry; they are not retrained. The
    patient stays away though the source still holds the records: erase them there too. Exports and backups are out of
    reach. Killed half-way, run it again.
    """
    from ml.publication.erasure import as_json as plain
    from ml.publication.erasure import erase as work

    if not yes:
        typer.confirm("Erase this patient from everything that Vigil keeps? It cannot be undone", abort=True, err=True)
    found = work(subject, reason, name or getpass.getuser())
    if as_json:
        typer.echo(json.dumps(plain(found), indent=2))
        return
    typer.echo(f"Erased. Recorded as {found.erasure_id} in governance.erasures.")
    typer.echo(f"  event log: {found.log_rows:,} rows in {found.partitions} partitions")
    typer.echo(f"  snapshots with a new digest: {len(found.snapshots)}")
    typer.echo(f"  files rewritten or removed: {found.files}; rows in quarantine: {found.quarantined}")
    typer.echo(f"  published rows: {sum(found.releases.values()):,} in {len(found.releases)} releases")
    flagged = ", ".join(f"{version} ({split})" for version, split in sorted(found.models.items())) or "none"
    typer.echo(f"  model versions that saw the patient, flagged: {flagged}")
    typer.echo("The source still holds the patient; Vigil keeps the records away from now on. Erase them there too.")
