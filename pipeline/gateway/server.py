"""The gateway's process. In: settings and what the command line says. Out: requests served until SIGTERM, then drained.

Draining: `/readyz` says so, for the load balancer to see, and answers end their connections; then no new connections,
requests in hand are answered, the relay ends its batch, exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from pipeline.amqp.publisher import Publisher
from pipeline.amqp.session import Session
from pipeline.cache import ResultCache
from pipeline.codec import Codec
from pipeline.errors import ConfigurationError
from pipeline.gateway.api_keys import KeyRing
from pipeline.gateway.app import make_app
from pipeline.gateway.authentication import Authentication, Credentials, Open, is_loopback
from pipeline.gateway.health import Health
from pipeline.gateway.http_protocol import BoundedHttpProtocol
from pipeline.gateway.parts import Door, Options, Parts
from pipeline.gateway.rate_limit import RateLimit
from pipeline.gateway.tokens import TokenRules, Tokens
from pipeline.log import get_logger
from pipeline.observe.status import EventStatuses
from pipeline.observe.stores import Stores
from pipeline.outbox import Relay, holder_name
from pipeline.settings import Settings
from pipeline.store.producer import ProducerStore
from pipeline.topology.load import load_topology

log = get_logger("gateway")

NOTICE = 1.0  # seconds between saying so at /readyz and closing the door: load balancers ask about every second
RELAY = 6.0  # seconds at most that the relay has to end its batch
CLOSING = 2.0  # seconds at most that are left for connections and the interpreter to end
BACKLOG = 2048  # connections that wait to be taken
KEEP_ALIVE = 20  # seconds an idle connection stays open; longer than a load balancer in front keeps it


@dataclass(frozen=True, slots=True)
class Serving:
    """What a gateway is started with."""

    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    insecure: bool = False
    relay: bool = True
    rate_limit: str = ""  # "1000/second" for each caller, "" for none
    tokens: TokenRules | None = None
    options: Options = field(default_factory=Options)


def check_serving(serving: Serving) -> None:
    """Raises: ConfigurationError for what must not be served."""
    if serving.insecure and not is_loopback(serving.host):
        raise ConfigurationError(
            f"--insecure lets everybody publish, so it is only for loopback, and {serving.host} is not; "
            "make keys with `pipeline keys create`, or use --host 127.0.0.1"
        )
    if serving.insecure and serving.tokens is not None:
        raise ConfigurationError("--insecure takes no credentials; leave --jwks out, or --insecure")


async def run_gateway(settings: Settings, serving: Serving) -> None:
    """Serve until told to stop.

    Raises: ConfigurationError, TopologyError; StoreUnavailable when the producer's database can't be used at the start.
    """
    check_serving(serving)
    topology = load_topology(settings.topology).topology
    codec = Codec(topology, settings.max_body)
    for name in topology.events:
        codec.payload(name)  # a model that can't be imported is found now
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _listening(serving) as listener:
        async with AsyncExitStack() as stack:
            rate = RateLimit(serving.rate_limit, settings.rate_limit_url) if serving.rate_limit else None
            if rate is not None:
                stack.push_async_callback(rate.close)
            cache = ResultCache.open(settings)
            stack.push_async_callback(cache.close)
            statuses = EventStatuses.open(settings, topology)
            stack.push_async_callback(statuses.close)
            stores = Stores(settings)
            stack.push_async_callback(stores.close)
            store = await ProducerStore.open(settings.producer_database_url)
            stack.push_async_callback(store.close)
            session: Session | None = None
            relay: Relay | None = None
            if serving.relay:
                session = Session(settings, "pipeline gateway")
                stack.push_async_callback(session.close)
                publisher = Publisher(topology, settings)
                stack.push_async_callback(publisher.close)
                relay = Relay(store, publisher, holder_name())
            tokens = None if serving.tokens is None else Tokens(serving.tokens)
            who: Authentication = Open() if serving.insecure else Credentials(KeyRing(store), tokens)
            door = Door(who, rate)
            parts = Parts(settings, topology, serving.options, codec, door, store, relay, cache, statuses)
            health = Health(parts, session)
            server = _Server(
                uvicorn.Config(
                    make_app(parts, health, stores),
                    http=BoundedHttpProtocol,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    log_level="error",  # that somebody sends garbage is no news
                    backlog=BACKLOG,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_keep_alive=KEEP_ALIVE,
                )
            )
            await _serve(server, listener, health, relay, stop, settings.drain_deadline)


async def _serve(
    server: _Server,
    listener: socket.socket,
    health: Health,
    relay: Relay | None,
    stop: asyncio.Event,
    deadline: float,
) -> None:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    relay_stop = asyncio.Event()
    serving = asyncio.create_task(server.serve([listener]), name="gateway")
    relaying = None if relay is None else asyncio.create_task(relay.run(relay_stop), name="relay")
    waiting = asyncio.create_task(stop.wait())
    log.info("listening", url=f"http://{name}:{port}", port=port, pid=os.getpid(), relay=relay is not None)
    tasks = [task for task in (serving, relaying, waiting) if task is not None]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        health.draining = True
        times = drain_times(deadline)
        if not serving.done():  # told to end, or the relay did
            log.info("draining", deadline=deadline)
            await asyncio.sleep(times.notice)
        server.config.timeout_graceful_shutdown = times.requests  # type: ignore[assignment] # for wait_for, all the same
        server.should_exit = True
        await serving
        relay_stop.set()
        if relaying is not None:
            _, late = await asyncio.wait({relaying}, timeout=times.relay)
            if late:  # what it has in hand stays in the outbox
                log.warning("the relay did not end its batch in time")
            else:
                await relaying
        log.info("ended")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """Seconds that each step of draining may take."""

    notice: float
    requests: float
    relay: float


def drain_times(deadline: float) -> DrainTimes:
    """All steps together stay below `deadline`; a fifth of it, two seconds at most, is left for closing."""
    notice = min(NOTICE, deadline / 5)
    left = deadline - notice - min(CLOSING, deadline / 5)
    relay = min(RELAY, left / 3)
    return DrainTimes(notice, left - relay, relay)


class _Server(uvicorn.Server):
    """uvicorn's server without its own signal handlers: draining begins before it is told to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _listening(serving: Serving) -> Iterator[socket.socket]:
    """The listening socket. Raises: ConfigurationError when the address can't be had."""
    try:
        found = socket.getaddrinfo(
            serving.host.strip("[]"), serving.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, *_, address = found[0]
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, ValueError, OverflowError) as error:  # ValueError: a name that can't be one
        raise ConfigurationError(
            f"{serving.host} port {serving.port} can't be listened on: {error}; choose another with --host and --port"
        ) from None
    with listener:
        yield listener


def token_rules(issuer: str | None, audience: str | None, jwks: Path | None) -> TokenRules | None:
    """The rules for JWTs; None when none of it is given. Raises: ConfigurationError when only a part is."""
    if not (issuer or audience or jwks):
        return None
    if not (issuer and audience and jwks):
        raise ConfigurationError("--jwt-issuer, --jwt-audience and --jwks belong together: give all three, or none")
    return TokenRules(issuer, audience, jwks)
