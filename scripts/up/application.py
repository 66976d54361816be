"""The boxes that are ours: gateways, relay, workers; and the steps before them. In: a place, settings. Out: boxes.

Each is the command line a user has, with its secrets in files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.address import LOOPBACK
from pipeline.settings import variable_suffix
from scripts.up import ask
from scripts.up.box import ProcessBox, Step
from scripts.up.place import PROJECT, Place

PIPELINE = (sys.executable, "-m", "pipeline")
API_KEY = "api_key"
DRAIN = 30.0  # s


@dataclass(frozen=True, slots=True)
class Application:
    """Makes the boxes of one place."""

    place: Place
    environment: Mapping[str, str]
    queues: ask.Queues

    def upgrade(self) -> Step:
        """Tables of the library in every database."""
        return self._step("db-upgrade", "db", "upgrade")

    def apply(self) -> Step:
        """Queues and exchanges."""
        return self._step("topology-apply", "topology", "apply")

    def key(self) -> Step:
        """An API key for the user, kept as a secret; once."""
        return Step(
            self.place,
            "keys-create",
            (*PIPELINE, "keys", "create", "make-up", "--all"),
            self.environment,
            PROJECT,
            keep=lambda printed: _keep_key(self.place, printed.decode()),
            needed=lambda: not self.place.secret_file(API_KEY).exists(),
        )

    def relay(self) -> ProcessBox:
        """Outbox → broker. The gateways have one each as well; whoever has the lease publishes."""

        async def ready() -> bool:
            return await ask.relaying(self.place.secret("producer-db_url"))

        return self._box("relay", ["outbox", "relay", "--json"], ready)

    def worker(self, subscription: str) -> ProcessBox:
        """One subscription's worker."""

        async def ready() -> bool:
            return await self.queues.consumers(subscription) > 0

        return self._box(f"{subscription}-worker", ["worker", "start", subscription, "--json"], ready, DRAIN + 10)

    def gateway(self, name: str, port: int) -> ProcessBox:
        """One of the gateways."""

        async def ready() -> bool:
            return await ask.http(port, "/readyz") == 200

        return self._box(name, ["gateway", "start", "--host", LOOPBACK, "--port", str(port)], ready, DRAIN + 10)

    def _step(self, name: str, *arguments: str) -> Step:
        return Step(self.place, name, (*PIPELINE, *arguments), self.environment, PROJECT)

    def _box(self, name: str, arguments: Sequence[str], ready: ask.Question, patience: float = 10.0) -> ProcessBox:
        command = (*PIPELINE, *arguments)
        return ProcessBox(self.place, name, command, self.environment, ready, PROJECT, patience=patience)


def environment(place: Place, topology: Path, subscriptions: Sequence[str]) -> dict[str, str]:
    """The whole environment of our programs: nothing of the caller's leaks in."""
    files = {
        "AMQP_URL": "amqp_url",
        "MANAGEMENT_URL": "management_url",
        "PRODUCER_DATABASE_URL": "producer-db_url",
        **{f"DATABASE_URL_{variable_suffix(name)}": f"{name}-db_url" for name in subscriptions},
        **{f"CACHE_URL_{variable_suffix(name)}": f"{name}-cache_url" for name in subscriptions},
    }
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PIPELINE_STATE_DIR": str(place.folder),
        "PIPELINE_TOPOLOGY": str(topology.absolute()),
        **{f"PIPELINE_{name}_FILE": str(place.secret_file(secret)) for name, secret in files.items()},
    }


def _keep_key(place: Place, printed: str) -> None:
    place.secret(API_KEY, printed.split()[-1])
