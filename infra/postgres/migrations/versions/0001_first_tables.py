"""The first tables: quarantine, decisions, releases, risk scores, interconnections."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the file; it goes to the driver as it is, since a percent sign in it means nothing."""
    file = Path(__file__).parents[1] / "0001_first_tables.sql"
    op.get_bind().connection.cursor().execute(file.read_text())
