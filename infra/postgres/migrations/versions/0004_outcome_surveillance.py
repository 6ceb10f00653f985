"""Surveillance of outcomes: what happened after a published score."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the file; it goes to the driver as it is, since a percent sign in it means nothing."""
    file = Path(__file__).parents[1] / "0004_outcome_surveillance.sql"
    op.get_bind().connection.cursor().execute(file.read_text())
