"""A TCP proxy in front of the broker, for network faults. In: a broker's URL. Out: an address that can be cut, stalled,
slowed down or closed at will; with a TLS context it speaks TLS to its clients.

It runs in the test's own event loop: give it something to await.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536  # bytes


class Proxy:
    """Passes bytes on until told otherwise; all faults hit every connection at once."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._target = urlsplit(url)
        self._tls = tls
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._upstream, self._downstream = asyncio.Event(), asyncio.Event()
        self.delay = 0.0  # seconds each chunk is held, in both directions
        self.refusing = False  # True: new connections are closed at once
        self.accepted = 0  # connections taken so far
        self.url = url
        self.resume()

    def cut(self) -> None:
        """End every connection abruptly, as a crash or a pulled cable that was noticed would."""
        for task in self._pairs:
            task.cancel()

    def stall(self, up: bool = True, down: bool = True) -> None:
        """Hold all bytes, to the broker (`up`) and from it (`down`), with every connection left open: a black hole."""
        self._upstream.clear() if up else self._upstream.set()
        self._downstream.clear() if down else self._downstream.set()

    def resume(self) -> None:
        """Let bytes pass again, the held ones first."""
        self.stall(up=False, down=False)

    def inject(self, data: bytes) -> None:
        """Send bytes to every client that the broker never sent."""
        for writers in self._pairs.values():
            writers[0].write(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its start to its end."""
        task = asyncio.current_task()
        assert task is not None
        writers = self._pairs[task] = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            if self.refusing:
                return
            self.accepted += 1
            far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
            writers.append(far_writer)
            pumps.append(asyncio.create_task(self._pump(reader, far_writer, self._upstream)))
            pumps.append(asyncio.create_task(self._pump(far_reader, writer, self._downstream)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # cut; asyncio would report a connection's cancelled task as an error
        finally:
            for pump in pumps:
                pump.cancel()
            for each in writers:
                each.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)
            del self._pairs[task]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await open_.wait()
                writer.write(chunk)
                await writer.drain()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        """Serve on a free port of this machine until the block ends; `url` then leads through the proxy."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self._tls)
        login = self._target.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        scheme = "amqps" if self._tls else "amqp"
        self.url = urlunsplit(self._target._replace(scheme=scheme, netloc=netloc))
        try:
            yield self
        finally:
            server.close()
            self.cut()
            while self._pairs:
                await asyncio.wait(list(self._pairs))
            await server.wait_closed()


@asynccontextmanager
async def proxy_to(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy to the broker at `url`, for the block."""
    async with Proxy(url, tls).listening() as proxy:
        yield proxy
