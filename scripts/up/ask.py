"""Whether a box is ready: each is asked what it is for. In: addresses and passwords. Out: yes or no, never an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import asyncpg

from pipeline.amqp.queue_length import queue_lengths
from pipeline.amqp.session import Session
from pipeline.broker.address import LOOPBACK
from pipeline.broker.processes import is_alive
from pipeline.errors import PipelineError
from pipeline.outbox.relay import LEASE
from pipeline.settings import load_settings

TIMEOUT = 3.0  # s
FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
Question = Callable[[], Awaitable[bool]]


async def postgres(url: str) -> bool:
    """Whether a login to the database gets an answer to a query."""
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT)
    except FAULTS:
        return False
    try:
        return bool(await connection.fetchval("SELECT 1", timeout=TIMEOUT) == 1)
    except FAULTS:
        return False
    finally:
        with suppress(*FAULTS):
            await connection.close(timeout=TIMEOUT)


async def relaying(url: str) -> bool:
    """Whether a relay that lives has the lease of the outbox in the producer's database."""
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT)
    except FAULTS:
        return False
    try:
        holder = await connection.fetchval("SELECT holder FROM pipeline_lease WHERE name = $1", LEASE, timeout=TIMEOUT)
        return holder is not None and is_alive(int(holder.split()[1]))
    except FAULTS:
        return False
    finally:
        with suppress(*FAULTS):
            await connection.close(timeout=TIMEOUT)


async def redis(port: int, password: str) -> bool:
    """Whether it takes the password and answers PING."""
    answer = await _exchange(port, f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
    return answer.startswith(b"+OK\r\n+PONG\r\n")


async def http(port: int, path: str, headers: str = "") -> int:
    """The status a GET is answered with; 0 without an answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n{headers}\r\n"
    first = (await _exchange(port, request.encode())).partition(b"\r\n")[0].split()
    return int(first[1]) if len(first) > 1 and first[1].isdigit() else 0


class Queues:
    """Asks the broker about queues, over a connection that is kept. What its management API says is seconds old."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment  # names files that are written when the broker is there
        self._session: Session | None = None

    async def consumers(self, queue: str) -> int:
        """How many consumers a queue has now; 0 when the broker does not say."""
        try:
            if self._session is None:
                self._session = Session(load_settings(self._environment), "make up")
            async with asyncio.timeout(TIMEOUT):
                return (await queue_lengths(await self._session.lane(), queue))[1]
        except (PipelineError, TimeoutError):
            return 0

    async def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            await self._session.close()


async def _exchange(port: int, request: bytes) -> bytes:
    """Everything that is answered until the connection ends."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                return await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
