"""One gateway for all tests that leave it as it was, with its broker, its database and two keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from pipeline.broker.address import Address
from pipeline.gateway.api_keys import new_key
from pipeline.store.producer import ApiKey, ProducerStore
from tests.gateway import shop
from tests.support.broker import TestVhost, new_vhost
from tests.support.gateway import Gateway, environ_for, gateway, pipeline


@dataclass(frozen=True, slots=True)
class Shop:
    """A folder with the application, and the environment of its commands."""

    folder: Path
    environ: dict[str, str]
    vhost: TestVhost

    def run(self, *arguments: str) -> str:
        """What `pipeline ...` prints."""
        return pipeline(self.folder, self.environ, *arguments)

    def key(self, *scopes: str) -> str:
        """A new API key, made here: a process for each would take a second."""
        stored, key = new_key("test", list(scopes))
        asyncio.run(self._add(stored))
        return key

    async def _add(self, key: ApiKey) -> None:
        folder = self.folder / "state/data"
        folder.mkdir(parents=True, exist_ok=True)
        store = await ProducerStore.open(f"sqlite+aiosqlite:///{folder}/producer.db")
        try:
            await store.add_key(key)
        finally:
            await store.close()


@pytest.fixture(scope="package")
def application(broker_node: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The application, its topology applied."""
    folder = tmp_path_factory.mktemp("shop")
    shop.write(folder)
    with new_vhost(broker_node) as vhost:
        made = Shop(folder, environ_for(folder, vhost.amqp_url, vhost.management_url), vhost)
        made.run("topology", "apply")
        yield made


@pytest.fixture(scope="package")
def key(application: Shop) -> str:
    """A key that may do everything."""
    return application.key("publish:*", "read:*")


@pytest.fixture(scope="package")
def door(application: Shop) -> Iterator[Gateway]:
    """The gateway."""
    with gateway(application.folder, application.environ, "--max-body", "20000", "--max-batch", "50") as running:
        yield running


@pytest.fixture
def client(door: Gateway, key: str) -> Iterator[httpx2.Client]:
    """A client that may do everything."""
    with door.client(key) as made:
        yield made
