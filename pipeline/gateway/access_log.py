"""One log line a request, and an answer whatever happens. In: ASGI requests. Out: the same, and a line in the log.

A line names the caller, never a credential, a query or anything of a body.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.gateway.body import ClientGone
from pipeline.gateway.parts import NOTES
from pipeline.gateway.problems import Problem
from pipeline.log import get_logger

log = get_logger("gateway")

LONGEST_PATH = 300  # characters of a path in the log
FRAMES = 12  # innermost calls told of an error
QUIET = frozenset({"/healthz", "/readyz"})  # asked every second by load balancers
INTERNAL = Problem(500, "internal", "something went wrong here; the log of the gateway says what")


class AccessLog:
    """The outermost layer of the application. While `draining`, answers ask clients to connect again, elsewhere."""

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self._app = app
        self._draining = draining
        self._log = log.bind()  # made once: it is asked for each request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        notes: dict[str, object] = {}
        scope[NOTES] = notes
        method = scope["method"]
        if method == "HEAD":  # as GET, of which the server leaves out the body
            scope = {**scope, "method": "GET"}
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientGone:
            notes["gone"] = True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered and told
            log.error("request failed", path=_path(scope), error=type(error).__name__, at=_where(error))
            if not status:
                await INTERNAL.response()(scope, receive, sending)
        if scope["path"] in QUIET:
            return
        taken = round((time.perf_counter() - began) * 1000, 1)
        self._log.info("request", method=method, path=_path(scope), status=status, ms=taken, **notes)


def _path(scope: Scope) -> str:
    """As it was sent, percent-encoded: nothing in it can end a line or speak to a terminal."""
    raw: bytes = scope.get("raw_path") or b""
    return raw[:LONGEST_PATH].decode("ascii", "backslashreplace")


def _where(error: Exception) -> list[str]:
    """The calls that led to it, innermost last. Not its words: a model's own validator may put data into them."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
