"""`python -m scripts.soak_outbox`: accept and relay for as long as you like, while relays and the broker are killed.

A private broker and, with `--postgresql`, a private PostgreSQL, which is killed as well. Three relay processes run;
every few seconds one is killed (SIGKILL) or frozen for longer than its lease, now and then the broker or the database
is killed. Exit code 0 only if every accepted event came out of the queue, each type in the order of
acceptance, and whatever came twice has the same id.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.broker.locate import programs
from pipeline.broker.node import Node
from pipeline.errors import StoreUnavailable
from pipeline.store.producer import Acceptance, NewEvent, ProducerStore
from tests.support.broker import new_vhost, wait_until_registered
from tests.support.outbox import KINDS, ROOM, check, consumed, empty, new_events
from tests.support.postgres import STATE, Server
from tests.support.postgres_programs import find
from tests.support.rabbit import rabbit

RELAYS = 3
BROKER_DIES, DATABASE_DIES = 25.0, 17.0  # s apart


@dataclass
class Soak:
    """What runs, and what was done to it."""

    environ: dict[str, str]
    dice: random.Random
    node: Node
    server: Server | None
    relays: list[subprocess.Popen[bytes]] = field(default_factory=list)
    accepted: list[NewEvent] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("killed", "frozen", "broker", "database"), 0))

    def start_relays(self) -> None:
        """As many as there should be."""
        self.relays = [relay for relay in self.relays if relay.poll() is None]
        while len(self.relays) < RELAYS:
            command = [sys.executable, "-m", "pipeline", "outbox", "relay", "--log-level", "error"]
            self.relays.append(subprocess.Popen(command, env=self.environ, stderr=subprocess.DEVNULL))

    async def accept(self, store: ProducerStore, kind: str, until: float) -> None:
        """Accept events of one type, one call after the other, through everything."""
        number = 0
        while time.monotonic() < until:
            events = new_events(self.dice.randint(1, 50), (kind,), first=number)
            try:
                answers = await store.accept(events, ROOM)
            except StoreUnavailable:
                await asyncio.sleep(0.2)
                continue  # they may be accepted or not: the same again
            assert set(answers) <= {Acceptance.ACCEPTED, Acceptance.REPEATED}
            self.accepted += events
            number += len(events)
            await asyncio.sleep(self.dice.uniform(0, 0.05))

    async def disturb(self, until: float) -> None:
        """Kill and freeze, until the time has come."""
        broker = time.monotonic() + BROKER_DIES
        database = time.monotonic() + DATABASE_DIES
        while time.monotonic() < until:
            self.start_relays()
            await asyncio.sleep(self.dice.uniform(0.5, 6))
            victim = self.dice.choice(self.relays)
            if self.dice.random() < 0.7:
                victim.kill()
                victim.wait()
                self.done["killed"] += 1
            else:
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(7)
                victim.send_signal(signal.SIGCONT)
                self.done["frozen"] += 1
            if time.monotonic() > broker:
                await asyncio.to_thread(self.node.kill)
                await asyncio.to_thread(self.node.start)
                broker = time.monotonic() + BROKER_DIES
                self.done["broker"] += 1
            if self.server is not None and time.monotonic() > database:
                await asyncio.to_thread(self.server.crash)
                await asyncio.to_thread(self.server.start)
                database = time.monotonic() + DATABASE_DIES
                self.done["database"] += 1
            print(f"{len(self.accepted):,} accepted; {self.done}", flush=True)

    async def run(self, url: str, seconds: float) -> int:
        """The soak; how many came twice."""
        with new_vhost(self.node.known_address()) as vhost:
            self.environ |= {"PIPELINE_AMQP_URL": vhost.amqp_url, "PIPELINE_PRODUCER_DATABASE_URL": url}
            async with rabbit(vhost) as seen:
                await seen.queue("work", bind=[("events", "#")])
            await asyncio.to_thread(wait_until_registered, self.node, vhost.name, ["work"])
            store = await ProducerStore.open(url)
            until = time.monotonic() + seconds
            try:
                callers = (self.accept(store, kind, until) for kind in KINDS)  # each type has an order of its own
                await asyncio.gather(self.disturb(until), *callers)
                self.start_relays()
                await empty(store, deadline=120)
            finally:
                for relay in self.relays:
                    with suppress(ProcessLookupError):
                        relay.send_signal(signal.SIGCONT)
                        relay.terminate()
                codes = [relay.wait(60) for relay in self.relays]
                await store.close()
            # One that was just started may not have got as far as to end in order.
            assert set(codes) <= {0, -signal.SIGTERM}, f"relays ended with {codes}"
            async with rabbit(vhost) as seen:
                ids = {event.id for event in self.accepted}
                return check(await consumed(seen, "work", ids, deadline=300), self.accepted)


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL, which is killed as well")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="pipeline-soak-") as folder:
        node = Node(Path(folder), programs(Path(".pipeline").absolute(), print))
        server = Server(find(STATE)) if arguments.postgresql else None
        soak = Soak(dict(os.environ), random.Random(arguments.seed), node, server)
        try:
            node.start()
            url = f"sqlite+aiosqlite:///{folder}/producer.db"
            if server is not None:
                server.start()
                url = server.url()
            twice = asyncio.run(soak.run(url, arguments.minutes * 60))
        finally:
            if server is not None:
                server.remove()
            node.kill()
            node.stop()
    print(f"{len(soak.accepted):,} accepted, all published, in order, {twice:,} of them twice; {soak.done}")


if __name__ == "__main__":
    main()
