"""The key ring over a real database: who is let in, how soon a change is seen, and what happens when it is away."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from pipeline.errors import StoreUnavailable
from pipeline.gateway import api_keys
from pipeline.gateway.api_keys import KeyRing, hash_of, new_key
from pipeline.store.producer import ApiKey, ProducerStore


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[ProducerStore]:
    opened = await ProducerStore.open(f"sqlite+aiosqlite:///{tmp_path}/p.db")
    yield opened
    await opened.close()


class Slow(ProducerStore):
    """A real store behind a line that can be cut (`away`) or hang (`flowing` not set)."""

    def __init__(self, inner: ProducerStore) -> None:
        super().__init__(inner._database)  # noqa: SLF001
        self.away = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.asked = 0

    async def keys(self) -> list[ApiKey]:
        self.asked += 1
        await self.flowing.wait()
        if self.away:
            raise StoreUnavailable("cut")
        return await super().keys()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the ring's clock go forward."""
    real, ahead = time.monotonic, 0.0

    def forward(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return real() + ahead

    monkeypatch.setattr("pipeline.gateway.api_keys.time", Clock)
    return forward


async def test_a_key_is_its_caller_and_a_changed_one_nobody(store: ProducerStore) -> None:
    stored, key = new_key("shop", ["publish:*"])
    await store.add_key(stored)
    ring = KeyRing(store)
    caller = await ring.caller(key)
    assert caller is not None
    assert (caller.id, caller.scopes) == (f"key:{stored.id}", ("publish:*",))
    assert stored.hash == hash_of(key.split("_", 2)[2])
    other = "A" if key[-1] != "A" else "B"
    for wrong in (key[:-1] + other, key + "A", key[:-1], f" {key}", key + "\n", key.upper(), "", "pk_", stored.id):
        assert await ring.caller(wrong) is None


async def test_secrets_are_compared_in_constant_time_also_for_a_key_that_is_none(
    store: ProducerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, key = new_key("shop", ["publish:*"])
    await store.add_key(stored)
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def watched(one: str, two: str) -> bool:
        compared.append((one, two))
        return real(one, two)

    monkeypatch.setattr("pipeline.gateway.api_keys.hmac.compare_digest", watched)
    ring = KeyRing(store)
    await ring.caller(key)
    await ring.caller(f"pk_000000000000_{'A' * 43}")
    assert [len(one) == len(two) == 64 for one, two in compared] == [True, True]


async def test_a_new_key_works_at_once_and_a_revoked_one_not_for_long(
    store: ProducerStore, later: Callable[[float], None]
) -> None:
    ring = KeyRing(store)
    assert await ring.caller(f"pk_000000000000_{'A' * 43}") is None
    stored, key = new_key("shop", ["publish:*"])
    await store.add_key(stored)
    assert await ring.caller(key) is not None
    await store.revoke_key(stored.id)
    later(api_keys.FRESH)
    assert await ring.caller(key) is None


async def test_however_many_ask_the_database_is_asked_once(store: ProducerStore) -> None:
    slow = Slow(store)
    stored, key = new_key("shop", ["publish:*"])
    await slow.add_key(stored)
    ring = KeyRing(slow)
    assert None not in await asyncio.gather(*(ring.caller(key) for _ in range(200)))
    unknown = [f"pk_{number:012x}_{'A' * 43}" for number in range(200)]
    assert set(await asyncio.gather(*map(ring.caller, unknown))) == {None}
    assert slow.asked <= 2


async def test_with_the_database_away_known_keys_are_good_for_a_while(
    store: ProducerStore, later: Callable[[float], None]
) -> None:
    slow = Slow(store)
    stored, key = new_key("shop", ["publish:*"])
    await slow.add_key(stored)
    slow.away = True
    with pytest.raises(StoreUnavailable):  # nobody is known yet
        await KeyRing(slow).caller(key)
    slow.away = False
    ring = KeyRing(slow)
    assert await ring.caller(key) is not None
    slow.away = True
    later(api_keys.KEPT - 5)
    assert await ring.caller(key) is not None
    later(6)
    with pytest.raises(StoreUnavailable):
        await ring.caller(key)
    slow.away = False
    later(api_keys.FRESH)
    assert await ring.caller(key) is not None


async def test_a_database_that_hangs_holds_up_nobody_for_long(
    store: ProducerStore, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "PATIENCE", 0.02)
    slow = Slow(store)
    stored, key = new_key("shop", ["publish:*"])
    await slow.add_key(stored)
    ring = KeyRing(slow)
    assert await ring.caller(key) is not None
    # given a database that takes the question and does not answer
    slow.flowing.clear()
    later(api_keys.FRESH)
    assert await ring.caller(key) is not None
    later(api_keys.FRESH)
    assert await ring.caller(key) is not None
    assert slow.asked == 2  # one question is enough
    # and what it says in the end counts
    await slow.revoke_key(stored.id)
    slow.flowing.set()
    later(api_keys.FRESH)
    assert await ring.caller(key) is None
