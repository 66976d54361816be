"""Opens connections, to any node of the cluster, and turns the client libraries' errors into ours.

In: settings. Out: connections, `BrokerError`s.

For what is not the hot path (declaring, inspecting, redriving) `open_connection` gives an aio-pika connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from yarl import URL

from pipeline.addresses import addresses_of, mask, vhost_of
from pipeline.amqp.nodes import first_to_answer
from pipeline.errors import (
    AccessRefused,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    ObjectLocked,
    ObjectMissing,
    TopologyDrift,
    VirtualHostMissing,
)
from pipeline.settings import Settings

T = TypeVar("T")

CLIENT_ERRORS = (aiormq.AMQPError, aiormq.ChannelInvalidStateError, OSError, asyncio.TimeoutError, RuntimeError)


async def connect_to_any(settings: Settings, name: str, connect: Callable[[str], Awaitable[T]]) -> T:
    """What `connect` makes of the first node that can be reached.

    It is given an AMQP URL with heartbeat and a connection name people see in RabbitMQ's tools.

    Raises: ConfigurationError when no broker is configured; BrokerUnavailable naming every node when none answers; what
        `connect` raises.
    """
    if not settings.amqp_url:
        raise ConfigurationError(
            "no broker is configured; set PIPELINE_AMQP_URL or start a private node with `pipeline broker start`"
        )
    urls = [_with_options(address, settings, name) for address in addresses_of(settings.amqp_url)]
    return await first_to_answer(_bare(settings.amqp_url), urls, connect)


def _with_options(address: str, settings: Settings, name: str) -> str:
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query))
    query.setdefault("heartbeat", str(settings.heartbeat))
    query.setdefault("name", name)
    return urlunsplit(parts._replace(query=urlencode(query)))


@asynccontextmanager
async def open_connection(settings: Settings, name: str) -> AsyncIterator[AbstractConnection]:
    """An aio-pika connection for the block; client errors raised inside come out as ours.

    Raises: BrokerError and its kinds.
    """

    async def connect(url: str) -> tuple[AbstractConnection, str]:
        connection = aio_pika.Connection(URL(url))
        try:
            await connection.connect(settings.connect_timeout)
        except (*CLIENT_ERRORS, aio_pika.exceptions.AMQPException) as error:
            await connection.close()  # what never opened must be closed as well, or it complains when it is forgotten
            raise translate(error, url) from error
        return connection, url

    connection, url = await connect_to_any(settings, name, connect)
    try:
        yield connection
    except (aiormq.AMQPError, aiormq.ChannelInvalidStateError) as error:
        raise translate(error, url) from error
    finally:
        await connection.close()


def _bare(url: str) -> str:
    """Without the options behind the virtual host."""
    return url.partition("?")[0]


def _refused_to_open(error: BaseException) -> bool:
    """Whether the broker closed the connection instead of opening the virtual host.

    aiormq (7.2) tells of that only as a frame that it did not expect, whose reason it does not give.
    """
    return isinstance(error, aiormq.ConnectionNotAllowed) or "Connection.OpenOk" in str(error)


def translate(error: BaseException, url: str) -> BrokerError:
    """Our error for a client library's error at `url`; passes ours through."""
    where = mask(_bare(url))
    detail = str(error) or type(error).__name__
    match error:
        case BrokerError():
            return error
        case aiormq.AuthenticationError() | aiormq.ProbableAuthenticationError():
            return AuthenticationFailed(f"{where} refused the user or password; check PIPELINE_AMQP_URL")
        case aiormq.ConnectionNotAllowed() | aiormq.exceptions.InvalidFrameError() if _refused_to_open(error):
            vhost = vhost_of(url)
            return VirtualHostMissing(
                f"virtual host {vhost!r} at {where} does not exist, or does not let this user in; "
                "create it or name another in PIPELINE_AMQP_URL"
            )
        case aiormq.ChannelAccessRefused():
            return AccessRefused(f"{where} does not permit this: {detail}")
        case aiormq.ChannelNotFoundEntity():
            return ObjectMissing(f"{where}: {detail}; `pipeline topology apply` declares what the topology files name")
        case aiormq.ChannelLockedResource():
            return ObjectLocked(f"{where}: {detail}")
        case aiormq.ChannelPreconditionFailed():
            return TopologyDrift(f"{where}: {detail}; `pipeline topology plan` shows the difference")
        case TimeoutError():
            return BrokerUnavailable(f"{where} did not answer in time; is the broker running?")
        case _:
            return BrokerUnavailable(f"{where} can't be reached: {detail}; is the broker running?")
