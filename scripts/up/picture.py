"""Which boxes there are, and in which order they start. In: a place, the topology. Out: stages for the supervisor."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.address import LOOPBACK, write_private
from pipeline.broker.locate import programs as rabbitmq_programs
from pipeline.broker.programs import HAPROXY, POSTGRESQL, REDIS, VALKEY, on_machine, programs
from pipeline.topology.load import load_topology
from scripts.up import application, ask, servers
from scripts.up.place import PROJECT, Place, choose_ports
from scripts.up.supervisor import Stage

GATEWAYS = ("gateway-1", "gateway-2")


@dataclass(frozen=True, slots=True)
class Picture:
    """What the supervisor runs, and what a user is told."""

    stages: tuple[Stage, ...]
    addresses: dict[str, str]
    queues: ask.Queues  # to be closed


def build(place: Place, topology: Path, front_door: int | None, say: Callable[[str], None]) -> Picture:
    """The whole picture; programs that are missing are downloaded first."""
    state = PROJECT / ".pipeline"
    rabbitmq = rabbitmq_programs(state, say)
    postgres = programs(POSTGRESQL, state, say)
    kit = VALKEY if on_machine(VALKEY) else REDIS
    redis = programs(kit, state, say)
    haproxy = programs(HAPROXY, state, say)

    subscriptions = [each.name for each in load_topology(topology).topology.subscriptions.values() if each.handler]
    databases = [f"{name}-db" for name in ("producer", *subscriptions)]
    caches = [f"{name}-cache" for name in subscriptions]
    ports = choose_ports(place, ["haproxy", "haproxy-stats", *GATEWAYS, *databases, *caches], front_door)

    stores: Stage = [
        servers.broker(place, rabbitmq),
        *(servers.postgres(place, name, ports[name], postgres) for name in databases),
        *(servers.redis(place, name, ports[name], redis, kit.programs[0]) for name in caches),
    ]
    environment = application.environment(place, topology, subscriptions)
    write_private(place.environment, _for_a_shell(environment))
    queues = ask.Queues(environment)
    ours = application.Application(place, environment, queues)
    stages: tuple[Stage, ...] = (
        stores,
        [ours.upgrade(), ours.apply()],
        [ours.key()],
        [
            ours.relay(),
            *(ours.worker(name) for name in subscriptions),
            *(ours.gateway(name, ports[name]) for name in GATEWAYS),
        ],
        [servers.haproxy(place, ports, haproxy)],
    )
    addresses = {
        "front door": f"http://{LOOPBACK}:{ports['haproxy']}",
        "statistics": f"http://{LOOPBACK}:{ports['haproxy-stats']}/stats",
        **{name: f"http://{LOOPBACK}:{ports[name]}" for name in GATEWAYS},
    }
    return Picture(stages, addresses, queues)


def _for_a_shell(environment: dict[str, str]) -> str:
    ours = {name: value for name, value in environment.items() if name.startswith("PIPELINE_")}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in ours.items())
