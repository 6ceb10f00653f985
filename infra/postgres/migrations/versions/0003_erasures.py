"""Erasures of patients: that they were done and what changed."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the file; it goes to the driver as it is, since a percent sign in it means nothing."""
    file = Path(__file__).parents[1] / "0003_erasures.sql"
    op.get_bind().connection.cursor().execute(file.read_text())
