"""Leases: one process at a time does something, and another takes over when it is gone. In: names. Out: who may.

PostgreSQL's clock counts, so that the clocks of machines don't matter; processes that share an SQLite file share a
machine and its clock.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, extract, func, literal, or_, select

from pipeline.store.database import Database, faults_of, read
from pipeline.store.producer_tables import LEASE


class Leases:
    """The leases of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, holder: str, seconds: float) -> bool:
        """See `ProducerStore.lease`."""
        if await self.holder(name) not in (None, holder):
            return False  # the usual answer for who waits for it; it costs no write

        def take(connection: Connection) -> bool:
            with faults_of(self._database), connection.begin():
                return connection.execute(self._upsert(name, holder, seconds)).first() is not None

        return await self._database.write(take)

    async def release(self, name: str, holder: str) -> None:
        """See `ProducerStore.release`."""

        def release(connection: Connection) -> None:
            with faults_of(self._database), connection.begin():
                connection.execute(delete(LEASE).where(LEASE.c.name == name, LEASE.c.holder == holder))

        await self._database.write(release)

    async def holder(self, name: str) -> str | None:
        """See `ProducerStore.holder`."""
        found = await read(
            self._database, select(LEASE.c.holder).where(LEASE.c.name == name, LEASE.c.expires_at >= self._now())
        )
        return found[0].holder if found else None

    def _upsert(self, name: str, holder: str, seconds: float) -> Any:
        insert = self._database.insert(LEASE).values(name=name, holder=holder, expires_at=self._now() + seconds)
        return insert.on_conflict_do_update(
            index_elements=[LEASE.c.name],
            set_={"holder": insert.excluded.holder, "expires_at": insert.excluded.expires_at},
            where=or_(LEASE.c.holder == holder, LEASE.c.expires_at < self._now()),
        ).returning(LEASE.c.holder)

    def _now(self) -> ColumnElement[Any]:
        if self._database.reader.dialect.name == "sqlite":
            return literal(time.time())
        return extract("epoch", func.clock_timestamp())
