"""API keys as the database keeps them. In: keys, of whose secrets there are only hashes. Out: the same, and revoked."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.errors import RowRejected
from pipeline.store.database import Database, faults_of, read
from pipeline.store.moments import moment_of, now_text, text_of
from pipeline.store.producer.values import ApiKey
from pipeline.store.producer_tables import API_KEY


class Keys:
    """The API keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey) -> None:
        """See `ProducerStore.add_key`."""
        revoked = None if key.revoked_at is None else text_of(key.revoked_at)
        row = {
            "id": key.id,
            "name": key.name,
            "hash": key.hash,
            "scopes": json.dumps(key.scopes),
            "created_at": text_of(key.created_at),
            "revoked_at": revoked,
        }

        def add(connection: Connection) -> None:
            with faults_of(self._database), connection.begin():
                connection.execute(insert(API_KEY).values(row))

        try:
            await self._database.write(add)
        except IntegrityError:
            raise RowRejected(f"there is a key with the id {key.id} already") from None

    async def all(self) -> list[ApiKey]:
        """See `ProducerStore.keys`."""
        rows = await read(self._database, select(API_KEY).order_by(API_KEY.c.created_at, API_KEY.c.id))
        return list(map(_key, rows))

    async def get(self, key_id: str) -> ApiKey | None:
        """See `ProducerStore.key`."""
        rows = await read(self._database, select(API_KEY).where(API_KEY.c.id == key_id))
        return _key(rows[0]) if rows else None

    async def revoke(self, key_id: str) -> bool:
        """See `ProducerStore.revoke_key`."""
        valid = (API_KEY.c.id == key_id, API_KEY.c.revoked_at.is_(None))

        def revoke(connection: Connection) -> bool:
            with faults_of(self._database), connection.begin():
                return connection.execute(update(API_KEY).where(*valid).values(revoked_at=now_text())).rowcount > 0

        return await self._database.write(revoke)


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        hash=row.hash,
        scopes=tuple(json.loads(row.scopes)),
        created_at=moment_of(row.created_at),
        revoked_at=None if row.revoked_at is None else moment_of(row.revoked_at),
    )
