"""uvicorn's fast HTTP protocol, with bounds. In: bytes. Out: requests; or 400 and 408, and the end of the connection.

The C parser behind it takes heads, trailers and chunk extensions of any length, for as long as they take, and reads on
after a request is refused: one client could fill the memory, a few hundred could hold every connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers, and of what comes with a body and is none of it
HEAD_TIMEOUT = 15.0  # seconds for a head to arrive, counted from the connection or from its first byte
LEFT_LIMIT = 1024 * 1024  # bytes read on after the answer, for a client that sends all before it looks
_UPGRADE = frozenset({b"upgrade", b"http2-settings", b"connection"})


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._count = 0  # bytes of a head that is not complete, or since the last of a body
        self._in_head = True
        self._left = 0  # bytes that came after the answer and still belong to its request
        self._upgrade = False
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unset_keepalive_if_required()
        self._count += len(data)
        if self._in_head:
            if self._clock is None:
                self._start_clock()
        elif self.cycle.response_complete:
            self._left += len(data)
            if self._left > LEFT_LIMIT:
                self.transport.close()
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse("400 Bad Request", "this is no HTTP/1.1 request")
        # What comes in one piece is a quarter of a megabyte at most, body and all.
        if self._count > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse("400 Bad Request", "the head of the request, or what is around its body, is too long")

    def on_headers_complete(self) -> None:
        """The parser's word that the head has ended."""
        if self.parser.should_upgrade():
            self._upgrade = True
            return
        super().on_headers_complete()
        self._in_head = False
        self._count = self._left = 0
        self._stop_clock()
        self.headers = []  # for trailers: nobody reads them, and they must not join what was decided upon

    def on_body(self, body: bytes) -> None:
        """The parser's word of a part of the body."""
        self._count = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser's word that the body has ended."""
        if self._upgrade:
            return
        self._in_head = True
        self._count = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written. What is left of its request is awaited for so long and no longer."""
        super().on_response_complete()
        if not self._in_head and self.cycle.response_complete and not self.transport.is_closing():
            self._start_clock()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request again as one that asks for no other protocol: RFC 9110, section 7.8, lets us ignore that.

        Some clients ask for HTTP/2 with their first request, whatever it is; the parser would take its body for a
        message in the new protocol.
        """
        self._upgrade = False
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse("400 Bad Request", "this is no proxy")
            return
        lines = [b"%s %s HTTP/1.1" % (method, self.url)]
        lines += [b"%s: %s" % each for each in self.headers if each[0] not in _UPGRADE]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if self._in_head and self._count:
            self._refuse("408 Request Timeout", "the head of the request did not arrive")
        else:
            self.transport.close()

    def _refuse(self, status: str, why: str) -> None:
        """End the connection, with this answer unless it would be taken for that of a request before it."""
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn says
        in_body = cycle is not None and not self._in_head and not self.pipeline and not cycle.response_started
        if cycle is None or cycle.response_complete or in_body:
            body = why.encode()
            head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        if cycle is not None and in_body:
            cycle.disconnected = True  # no second answer
        self.transport.close()
