"""Alembic's entry: runs the revisions on the connection that ``infra.postgres.migrate`` hands over."""

from alembic import context

from infra.postgres.migrate import SCHEMA

context.configure(connection=context.config.attributes["connection"], version_table_schema=SCHEMA)
with context.begin_transaction():
    context.run_migrations()
