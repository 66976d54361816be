"""API keys. In: a name and scopes, or what a request carries. Out: a key shown once and its hash, or who it is.

A key is `pk_<id>_<secret>` with 256 bits of chance in its secret. That can't be guessed, so a fast hash protects it at
rest as well as a slow one would, and one that takes a microsecond can be checked on each request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time

from pipeline.errors import StoreUnavailable
from pipeline.event import utc_now
from pipeline.gateway.scopes import Caller, checked
from pipeline.log import get_logger
from pipeline.store.producer import ApiKey, ProducerStore

log = get_logger("gateway")

KEY = re.compile(r"pk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
FRESH = 2.0  # seconds that keys are remembered: how long a revoked one may still be taken
NEW = 0.2  # seconds between two looks for ids that nobody knows: a new key works at once, a wrong one waits
EARLY = 0.005  # seconds by which a timer may wake before its time
KEPT = 600.0  # seconds that remembered keys are good for while the database is away and nobody could revoke one
PATIENCE = 0.5  # seconds that reading them again may hold up a request
NOBODY = hashlib.sha256(b"").hexdigest()  # compared with where there is no key, so that both take the same time


def new_key(name: str, scopes: list[str]) -> tuple[ApiKey, str]:
    """What to store, and the key itself, which is nowhere else. Raises: ConfigurationError for what is no scope."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return ApiKey(key_id, name, hash_of(secret), checked(scopes), utc_now()), f"pk_{key_id}_{secret}"


def hash_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyRing:
    """The keys of the producer's database, remembered for `FRESH` seconds."""

    def __init__(self, store: ProducerStore) -> None:
        self._store = store
        self._keys: dict[str, ApiKey] = {}
        self._read_at = self._tried_at = time.monotonic() - KEPT
        self._reading: asyncio.Task[None] | None = None

    async def caller(self, key: str) -> Caller | None:
        """Whose key this is; None when it is unknown, wrong or revoked.

        Raises: StoreUnavailable when that can't be known.
        """
        parts = KEY.fullmatch(key)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        await self._refresh(FRESH)
        if key_id not in self._keys:  # it may have been made just now
            left = self._tried_at + NEW - time.monotonic()
            if left > 0:
                await asyncio.sleep(left + EARLY)
            await self._refresh(NEW)
        known = self._keys.get(key_id)
        right = hmac.compare_digest(hash_of(secret), known.hash if known is not None else NOBODY)
        if known is None or not right or known.revoked_at is not None:
            return None
        return Caller(f"key:{key_id}", known.scopes)

    async def _refresh(self, age: float) -> None:
        """Read all keys again unless that was done less than `age` seconds ago: one query, however many ask.

        A database that is slow to answer is not waited for for long: the keys that are known are good meanwhile.
        """
        now = time.monotonic()
        if now - self._read_at < age:
            return
        if self._reading is None and now - self._tried_at >= age:
            self._tried_at = now
            self._reading = asyncio.create_task(self._read(now))
            self._reading.add_done_callback(self._ended)
        if self._reading is not None:
            known = now - self._read_at < KEPT
            await asyncio.wait({self._reading}, timeout=PATIENCE if known else None)
        if now - self._read_at >= KEPT:
            raise StoreUnavailable("API keys can't be checked: the producer's database does not answer")

    async def _read(self, now: float) -> None:
        try:
            self._keys = {key.id: key for key in await self._store.keys()}
            self._read_at = now
        except StoreUnavailable:
            log.warning("keys can't be read again", known=len(self._keys))

    def _ended(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled() and (error := reading.exception()) is not None:
            log.error("keys can't be read again", known=len(self._keys), error=repr(error))
