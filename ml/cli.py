"""The command line, `vigil`. Light to start: whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import logging
import sys

import typer

from infra.airflow.commands import app as backfill
from infra.embedded.commands import app as stack
from infra.embedded.night import night
from infra.postgres.commands import app as database
from ml.cohorts.commands import app as cohorts
from ml.cohorts.export_commands import app as export
from ml.cohorts.task_commands import app as tasks
from ml.common.errors import VigilError
from ml.demo.commands import app as demo
from ml.evaluation.commands import app as evaluation
from ml.experiments.commands import app as experiments
from ml.extraction.commands import reconcile
from ml.interconnections.commands import app as interconnections
from ml.publication.commands import publish, show
from ml.publication.erase_commands import erase
from ml.registry.commands import model, review
from ml.sequences.commands import app as sequences
from ml.sources.commands import app as load
from ml.training.commands import app as training

app = typer.Typer(
    name="vigil",
    help="Risk scores and disease interconnections from health records, every night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables could show a patient's values
    rich_markup_mode="rich",
)
app.command("night")(night)
app.add_typer(show, name="show", help="Read what is published.")
app.add_typer(review, name="review", help="Decide on the models that wait.")
app.add_typer(model, name="model", help="The model in use.")
app.add_typer(publish, name="publish", help="Move what is current.")
app.add_typer(load, name="load", help="Bring CSV exports and MEDS datasets into Postgres.")
app.command("reconcile")(reconcile)
app.command("erase")(erase)
app.add_typer(demo, name="demo", help="The demo hospital.")
app.add_typer(tasks, name="tasks", help="The outcomes that can be predicted.")
app.add_typer(cohorts, name="cohorts", help="Labels of a run.")
app.add_typer(export, name="export", help="A snapshot in a format that other tools read.")
app.add_typer(sequences, name="sequences", help="Vocabulary and token stores.")
app.add_typer(training, name="train", help="Pretraining and fine-tuning.")
app.add_typer(evaluation, name="evaluate", help="A model against its baselines.")
app.add_typer(interconnections, name="interconnections", help="Which diagnoses go together, which comes after which.")
app.add_typer(experiments, name="experiment", help="The papers' experiments.")
app.add_typer(backfill, name="backfill", help="Past nights again: plan, run, diff.")
app.add_typer(stack, name="stack", help="The embedded stack: Postgres, MLflow and Airflow on this machine.")
app.add_typer(database, name="db", help="Roles and migrations of Vigil's databases.")


def main() -> None:
    """Entry point: known failures end in one line and their exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("ml").setLevel(logging.INFO)
    try:
        app()
    except VigilError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
