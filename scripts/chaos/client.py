"""One client of the front door. In: requests. Out: answers, over a connection that is kept, as ordinary clients do.

It never tries again: a failed request is what is counted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

PATIENCE = 60.0  # s for an answer
HEAD = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` 0 when nothing did, and `body` says why."""

    status: int
    body: bytes = b""


class Client:
    """Sends one request after another."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """The answer to a request."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._send(method, path, headers, body)
        except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
            await self.close()
            return Answer(0, f"{type(error).__name__}: {error}".encode())

    async def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            await self.close()
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=HEAD)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        answer = Answer(int(head[0].split()[1]), await self._body(self._reader, fields))
        if fields.get("connection") == "close":
            await self.close()
        return answer

    async def _body(self, reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
        if fields.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await reader.readline(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readexactly(2)
            return b"".join(parts)
        if "content-length" in fields:
            return await reader.readexactly(int(fields["content-length"]))
        return await reader.read()
