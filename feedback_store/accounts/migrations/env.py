"""Alembic's entry point; the connection comes from `Database.migrate`."""

from alembic import context

configuration = context.config.attributes
context.configure(
    connection=configuration["connection"], version_table=configuration["version_table"]
)
context.run_migrations()
