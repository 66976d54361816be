"""Whether a box is ready: each is asked what it is for. In: addresses and passwords. Out: yes or no, never an error."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import asyncpg

from pipeline.broker.address import LOOPBACK
from pipeline.broker.processes import is_alive
from pipeline.outbox.relay import LEASE

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


async def consumers(management_url: str, queue: str) -> int:
    """How many consumers a queue of the default virtual host has now; 0 when the broker does not say."""
    parts = urlsplit(management_url)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    authorization = f"Authorization: Basic {base64.b64encode(login).decode()}\r\n"
    # What it says of a queue is seconds old; its list of consumers is not.
    request = f"GET /api/consumers/%2F HTTP/1.0\r\nHost: {LOOPBACK}\r\n{authorization}\r\n"
    body = (await _exchange(parts.port or 0, request.encode())).partition(b"\r\n\r\n")[2]
    try:
        return sum(each["queue"]["name"] == queue for each in json.loads(body))
    except (ValueError, TypeError, KeyError):
        return 0


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
