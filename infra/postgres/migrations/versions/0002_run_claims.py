"""Claims of runs on days, and the history of publications."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the file; it goes to the driver as it is, since a percent sign in it means nothing."""
    file = Path(__file__).parents[1] / "0002_run_claims.sql"
    op.get_bind().connection.cursor().execute(file.read_text())
