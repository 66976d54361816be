"""uvicorn's fast HTTP protocol, with bounds on a request's head. In: bytes. Out: requests; or 400 and 408, and the end.

The C parser behind it takes a head of any length, for as long as it takes: one client could fill the memory, a few
hundred could hold every connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers
HEAD_TIMEOUT = 15.0  # seconds for them to arrive, counted from the connection or from their first byte


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head = 0  # bytes of a head that is not complete
        self._in_head = True
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
        if self._in_head:
            self._head += len(data)
            if self._clock is None:
                self._start_clock()
        super().data_received(data)
        # What comes in one piece is a quarter of a megabyte at most, body and all.
        if self._in_head and self._head > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse("400 Bad Request", "the head of the request is too long")

    def on_headers_complete(self) -> None:
        """The parser's word that the head has ended."""
        self._in_head = False
        self._head = 0
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser's word that the body has ended."""
        self._in_head = True
        super().on_message_complete()

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if self.transport.is_closing():
            return
        if self._head:
            self._refuse("408 Request Timeout", "the head of the request did not arrive")
        else:
            self.transport.close()

    def _refuse(self, status: str, why: str) -> None:
        body = why.encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
