"""The history of the library's own tables, run by alembic: `worker/` and `producer/` hold one file a revision."""
