"""A request's body. In: what arrives, in pieces. Out: all of it, or 413, 408, 415; no more than the limit is held."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from pipeline.gateway.problems import CLOSE, Problem, Refused


class ClientGone(Exception):
    """Nobody is there to be answered. Not an error of ours: whoever waits for an answer has hung up."""


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All of the body. A request that is refused here is not read to its end, so its connection is closed.

    Raises: Refused (413 over `limit` bytes, 408 after `seconds`, 415 when it is compressed), ClientGone.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        headers = {**CLOSE, "accept-encoding": "identity"}
        raise Refused(Problem(415, "coding", "send the body uncompressed", headers=headers))
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18 or int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, limit)
    except TimeoutError:
        raise Refused(
            Problem(408, "too-slow", f"the body did not arrive within {seconds:g} seconds", headers=CLOSE)
        ) from None


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)


def _too_large(limit: int) -> Refused:
    return Refused(Problem(413, "too-large", f"the body is over {limit} bytes", headers=CLOSE))
