"""A gateway that misbehaves as told, behind a real haproxy. In: orders. Out: the requests that came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CHECKS = ("/healthz", "/readyz")


@dataclass(frozen=True, slots=True)
class Request:
    """What haproxy sent."""

    method: str
    path: str
    headers: dict[str, list[str]]
    body: bytes

    def one(self, name: str) -> str:
        """The only value of a header."""
        (value,) = self.headers[name]
        return value


@dataclass
class StandIn:
    """Answers 202, unless told otherwise."""

    port: int = 0
    healthy: bool = True
    ready: bool = True
    status: int = 202
    hangs_up: bool = False  # reads the request and ends the connection
    answering: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: answers wait
    requests: list[Request] = field(default_factory=list)
    checks: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while request := await _read(reader):
                if request.path in CHECKS:
                    self.checks += 1
                    good = self.healthy if request.path == "/healthz" else self.ready
                    writer.write(_answer(200 if good else 503))
                    continue
                self.requests.append(request)
                if self.hangs_up:
                    break
                await self.answering.wait()
                writer.write(_answer(self.status))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def stand_in() -> AsyncIterator[StandIn]:
    """One that listens for the block."""
    made = StandIn()
    made.answering.set()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.answering.set()
        server.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split()
    headers: dict[str, list[str]] = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    size = int(headers.get("content-length", ["0"])[0])
    return Request(method, path, headers, await reader.readexactly(size))


def _answer(status: int) -> bytes:
    return f"HTTP/1.1 {status} Words\r\nServer: uvicorn/1.2\r\nContent-Length: 2\r\n\r\n{{}}".encode()
