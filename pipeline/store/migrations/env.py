"""Run by alembic. In: a connection in a transaction and a family of tables, from `migrating.py`. Out: revisions run."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
family = context.config.attributes["family"]
context.configure(
    connection=connection,
    target_metadata=family.metadata,
    version_table=family.marks.name,
    transactional_ddl=True,  # SQLite's too, as we open it
)
with context.begin_transaction():  # which is the caller's
    context.run_migrations()
