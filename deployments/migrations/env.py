"""What Alembic runs: the steps to the newest version, in the transaction of the caller."""

from alembic import context

from deployments.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
