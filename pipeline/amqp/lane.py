"""The fast lane: one connection whose claimed channels run past the client library. In: settings. Out: channels.

aiormq gives a seam for this, `TransportFactory`: our protocol sits under its stream, takes the content and confirm
frames of the claimed channels (`frames.FrameSplitter`) and feeds it everything else. Login, tuning, heartbeats,
opening and closing channels, consuming and cancelling all stay aiormq's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar, cast

import aiormq
from yarl import URL

from pipeline.amqp.connection import CLIENT_ERRORS, connect_to_any, translate
from pipeline.amqp.frames import HEARTBEAT_FRAME, ChannelSink, FrameSplitter
from pipeline.errors import BrokerError, BrokerUnavailable, ProtocolViolation
from pipeline.settings import MEGABYTE, Settings

# aiormq counts only the frames it sees as signs of life, and RabbitMQ sends no heartbeat while it sends data: traffic
# that we divert is made known to aiormq as a heartbeat, at most this often (seconds).
LIFE_SIGN = 1.0
ANSWER_DEADLINE = 10.0  # seconds the broker has to answer a question
CLOSE_DEADLINE = 5.0  # seconds an orderly end may take; a peer that is still silent then is cut off
LARGEST_MESSAGE = 512 * MEGABYTE  # the most that RabbitMQ can be told to take (rabbit.max_message_size)

T = TypeVar("T")


class _LaneProtocol(asyncio.StreamReaderProtocol):
    """The byte stream of one connection: claimed frames to their sinks, the rest to aiormq's reader."""

    def __init__(self, reader: asyncio.StreamReader, splitter: FrameSplitter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._reader = reader
        self._splitter = splitter
        self._clock = loop.time
        self._last_sign = 0.0
        self._socket: asyncio.Transport | None = None
        self.violation: ProtocolViolation | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.violation is not None:
            return
        try:
            others = self._splitter.feed(data)
        except ProtocolViolation as violation:
            self.violation = violation
            assert self._socket is not None
            self._socket.abort()
            return
        now = self._clock()
        if others:
            self._last_sign = now
            super().data_received(others)
        elif now - self._last_sign > LIFE_SIGN:
            self._last_sign = now
            super().data_received(HEARTBEAT_FRAME)


class _LaneTransport(aiormq.TransportFactory):
    """Opens the socket (TCP, or TLS for amqps) with our protocol on it."""

    def __init__(self, splitter: FrameSplitter) -> None:
        self._splitter = splitter
        self.protocol: _LaneProtocol | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        provider = cast(aiormq.SSLContextProvider, kwargs["ssl_context_provider"])
        tls = await provider.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(loop=loop)
        self.protocol = protocol = _LaneProtocol(reader, self._splitter, loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            str(url.host),
            url.port or 0,
            ssl=tls,
            ssl_shutdown_timeout=CLOSE_DEADLINE if tls is not None else None,
        )
        self.writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self.writer


class Lane:
    """An open connection. `lost` is done, with the error, once it is of no more use."""

    def __init__(self, connection: aiormq.Connection, transport: _LaneTransport, splitter: FrameSplitter, url: str):
        assert transport.writer is not None
        self._connection = connection
        self._transport = transport
        self._writer = transport.writer
        self._splitter = splitter
        self._url = url
        self.frame_max: int = connection.connection_tune.frame_max or 0
        splitter.tune(self.frame_max)
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._closing = connection.closing
        self._closing.add_done_callback(self._note_loss)

    @classmethod
    async def open(cls, settings: Settings, name: str) -> Lane:
        """Connect and log in, to any node that answers.

        Raises: BrokerError and its kinds, ConfigurationError without a broker.
        """
        return await connect_to_any(settings, name, lambda url: cls._open(settings, url))

    @classmethod
    async def _open(cls, settings: Settings, url: str) -> Lane:
        lanes: list[Lane] = []

        def blocked(now: bool) -> None:
            for lane in lanes:
                lane.unblocked.clear() if now else lane.unblocked.set()

        # A message over `max_body` must come in as well: what is to become of it is for the codec to say.
        splitter = FrameSplitter(max(settings.max_body, LARGEST_MESSAGE), blocked)
        transport = _LaneTransport(splitter)
        connection = aiormq.Connection(url, transport_factory=transport)
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await connection.connect()
        except CLIENT_ERRORS as error:
            violation = transport.protocol.violation if transport.protocol else None
            raise violation or translate(error, url) from error
        lane = cls(connection, transport, splitter, url)
        lanes.append(lane)
        return lane

    @property
    def is_lost(self) -> bool:
        """The connection is gone, or going."""
        return self.lost.done()

    def _note_loss(self, closing: asyncio.Future[Any]) -> None:
        cause: BaseException | None = None if closing.cancelled() else closing.exception()
        violation = self._transport.protocol.violation if self._transport.protocol else None
        if self.lost.done():
            return
        if violation is not None:
            self.lost.set_result(violation)
        elif isinstance(cause, Exception):
            self.lost.set_result(translate(cause, self._url))
        else:
            self.lost.set_result(BrokerUnavailable("the connection to the broker was closed"))
        self.unblocked.set()  # nobody must wait on a dead connection

    async def ask(self, question: Awaitable[T]) -> T:
        """The client library's answer to a call of it that waits for the broker.

        Raises: BrokerError when the broker refuses, does not answer in time, or the connection is lost meanwhile.
        """
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                return await question
        except asyncio.CancelledError:
            # The client library ends its waits this way when a connection dies. Nobody cancelled us.
            if task is None or task.cancelling() > cancelled_before:
                raise
            raise self.explain(ConnectionError("the connection was lost")) from None
        except CLIENT_ERRORS as error:
            raise self.explain(error) from error
        except Exception as error:
            if not self._connection.is_closed:
                raise
            raise self.explain(error) from error

    async def channel(self, sink: ChannelSink, confirms: bool = False) -> aiormq.abc.AbstractChannel:
        """Open a channel whose content and confirms go to `sink`. Raises: BrokerError."""
        channel = await self.ask(self._connection.channel(publisher_confirms=confirms))
        self._splitter.claim(channel.number, sink)
        # Its number will be given to others, who may be the client library's.
        channel.closing.add_done_callback(lambda _: self._splitter.release(channel.number, sink))
        return channel

    async def plain_channel(self) -> aiormq.abc.AbstractChannel:
        """Open a channel that is all the client library's. Raises: its errors."""
        return await self._connection.channel(publisher_confirms=False)

    async def close_channel(self, channel: aiormq.abc.AbstractChannel) -> None:
        """Give the channel back; the broker requeues what it had not acked. Never fails."""
        with suppress(BrokerError):  # the connection is going as well, and `lost` says why
            await self.ask(channel.close())

    def explain(self, error: BaseException) -> BrokerError:
        """Our error for a client library's on this connection."""
        return self.lost.result() if self.lost.done() else translate(error, self._url)

    def write(self, data: bytes) -> None:
        """Send whole frames. Raises: BrokerError when the connection is lost."""
        if self.lost.done():
            raise self.lost.result()
        # uvloop refuses a socket that is closed already, though `lost` is only about to say so: whoever waits for an
        # answer hears of it there.
        with suppress(RuntimeError):
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more. Raises: BrokerError when the connection is lost."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise self.explain(error) from error

    async def drain_quietly(self) -> None:
        """Wait until what was written is on its way, if the connection still lives, and not long. Never fails."""
        if not self.lost.done():
            with suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(CLOSE_DEADLINE):
                    await self.drain()

    def abort(self) -> None:
        """Cut the connection at once: the peer no longer answers. From now on it is lost, for everybody."""
        if not self.lost.done():
            self.lost.set_result(BrokerUnavailable("the broker no longer answered, and the connection was cut"))
            self.unblocked.set()
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection: in an orderly way, or abruptly when the broker does not play along. Never fails."""
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_DEADLINE)
        finally:
            if not closing.done():
                self.abort()
        await asyncio.wait([closing], timeout=CLOSE_DEADLINE)
        if closing.done() and not closing.cancelled():
            closing.exception()  # it is gone, which is what was wanted
