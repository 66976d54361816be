"""The bounds of a connection, on a real socket: heads, trailers, what comes after a refusal, upgrades, pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from pipeline.gateway import http_protocol
from pipeline.gateway.http_protocol import HEAD_LIMIT, LEFT_LIMIT, BoundedHttpProtocol

Talk = Callable[..., Awaitable[bytes]]
PATIENCE = 20.0  # s
END = b"connection: close\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers /refuse at once, and everything else with its head and body."""
    body = b""
    while scope["path"] != "/refuse":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    names = b",".join(sorted(name for name, _ in scope["headers"]))
    said = scope["method"].encode() + b" " + scope["path"].encode() + b" " + names + b" " + body
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@pytest_asyncio.fixture
async def talk() -> AsyncIterator[Talk]:
    """Sends pieces and gives what is answered until the connection ends."""
    config = uvicorn.Config(
        echo, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None, log_level="error", access_log=False
    )
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]

    async def talking(*pieces: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = b""
        try:
            async with asyncio.timeout(PATIENCE):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)  # another segment
                while part := await reader.read(65536):
                    found += part
        except ConnectionError:
            pass
        finally:
            writer.close()
        return found

    yield talking
    server.close()
    await asyncio.gather(*state.tasks)


async def test_a_request_is_answered(talk: Talk) -> None:
    answer = await talk(b"POST /a HTTP/1.1\r\nhost: x\r\n" + END + b"content-length: 3\r\n\r\nabc")
    assert answer.endswith(b"POST /a connection,content-length,host abc")


@pytest.mark.parametrize("filler", [b"x-a: " + b"a" * 100_000, b"x-a: a\r\n" * 20_000], ids=["one header", "many"])
async def test_a_head_too_long_is_refused(talk: Talk, filler: bytes) -> None:
    pieces = [filler[at : at + 10_000] for at in range(0, len(filler), 10_000)]
    answer = await talk(b"GET / HTTP/1.1\r\n", *pieces)
    assert not answer or answer.startswith(b"HTTP/1.1 400")


async def test_a_head_as_long_as_may_be_is_taken_with_a_large_body(talk: Talk) -> None:
    head = b"POST /a HTTP/1.1\r\n" + END + b"content-length: 500000\r\nx-a: "
    head += b"a" * (HEAD_LIMIT - len(head) - 4) + b"\r\n\r\n"
    assert len(head) == HEAD_LIMIT
    answer = await talk(head[:30_000], head[30_000:] + b"b" * 500_000)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b" " + b"b" * 500_000)


@pytest.mark.parametrize(
    "around", [b"0\r\nx-a: " + b"a" * 300_000, b"1;" + b"a" * 300_000, b"0\r\n" + b"a: b\r\n" * 60_000]
)
async def test_what_is_around_a_body_is_bounded(talk: Talk, around: bytes) -> None:
    head = b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [around[at : at + 50_000] for at in range(0, len(around), 50_000)]
    answer = await talk(head, *pieces)
    assert not answer or answer.startswith(b"HTTP/1.1 400")


async def test_trailers_are_no_headers(talk: Talk) -> None:
    head = b"POST /a HTTP/1.1\r\n" + END + b"transfer-encoding: chunked\r\n\r\n"
    answer = await talk(head, b"3\r\nabc\r\n", b"0\r\nx-api-key: stolen\r\n\r\n")
    assert answer.endswith(b"POST /a connection,transfer-encoding abc")


async def test_after_a_refusal_so_much_is_read_on_and_no_more(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 2 * PATIENCE)  # it is not time that ends it
    head = b"POST /refuse HTTP/1.1\r\ncontent-length: %d\r\n\r\n"
    # what ends soon is followed by the next request
    half = LEFT_LIMIT // 2
    answer = await talk(head % half, b"x" * half, b"GET /next HTTP/1.1\r\n" + END + b"\r\n")
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"GET /next connection ")
    # what does not is cut off
    pieces = [b"x" * 100_000] * (3 * LEFT_LIMIT // 100_000)
    answer = await talk(head % (10 * LEFT_LIMIT), *pieces)
    assert answer.count(b"HTTP/1.1") <= 1


async def test_what_is_slow_is_ended(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
    assert (await talk(b"GET / HT")).startswith(b"HTTP/1.1 408")
    assert await talk() == b""
    # also when the head is begun behind another request, and when a refused body never ends
    assert b"HTTP/1.1 408" in await talk(b"GET /a HTTP/1.1\r\n\r\n", b"GET /b HT")
    assert (await talk(b"POST /refuse HTTP/1.1\r\ncontent-length: 9\r\n\r\nx")).count(b"HTTP/1.1") == 1


async def test_requests_one_behind_the_other_are_answered_in_order(talk: Talk) -> None:
    one = b"POST /%d HTTP/1.1\r\ncontent-length: 1\r\n\r\n%d"
    last = b"POST /9 HTTP/1.1\r\n" + END + b"content-length: 1\r\n\r\n9"
    answer = await talk(b"".join(one % (n, n) for n in range(9)) + last[:20], last[20:])
    assert [answer.index(b"POST /%d" % n) for n in range(10)] == sorted(
        answer.index(b"POST /%d" % n) for n in range(10)
    )


async def test_another_protocol_is_not_taken_and_the_request_is(talk: Talk) -> None:
    for asked in (b"h2c", b"websocket"):
        head = b"POST /a HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: " + asked + b"\r\n"
        head += b"http2-settings: AAMAAABk\r\nx-id: 7\r\ncontent-length: 3\r\n\r\n"
        last = b"GET /b HTTP/1.1\r\n" + END + b"\r\n"
        for pieces in ((head + b"abc" + last,), (head, b"abc", last), (head[:50], head[50:] + b"a", b"bc" + last)):
            answer = await talk(*pieces)
            assert b"POST /a content-length,x-id abc" in answer
            assert answer.endswith(b"GET /b connection ")


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT db.internal:5432 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\ncontent-length : 3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\nhost: x\n\n",
        b"GET /a HTTP/1.1\r\nx-a: b\r\n folded\r\n\r\n",
        b"GET /a HTTP/1.1\r\nx-a: b\x00c\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
async def test_what_two_servers_might_read_in_two_ways_is_refused(talk: Talk, request_: bytes) -> None:
    answer = await talk(request_)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"\r\n\r\n") == 1  # one answer
