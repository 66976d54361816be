"""Posts over keep-alive connections, many at once. In: address, body, counts. Out: how long each request took.

A client of a few lines over asyncio's streams: what is measured is the server, which shares the machine with it.
"""

from __future__ import annotations

import asyncio
import itertools
import time

import uvloop

from benchmarks.payload import EVENT_TYPE, body
from benchmarks.protocol import Clock, arguments, ready


async def main() -> None:
    """Send all requests; report each one's time in milliseconds."""
    wanted = arguments()
    host, port, path = wanted["host"], wanted["port"], wanted["path"]
    batch: int = wanted["batch"]
    requests: int = wanted["requests"]
    number = itertools.count()
    left = itertools.count(1)
    taken: list[float] = []
    kind = "application/json" if batch == 1 else "application/x-ndjson"
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\n"

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while next(left) <= requests:
            data = b"\n".join(body(next(number)) for _ in range(batch))
            request = f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
            began = time.perf_counter()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            said = await reader.readexactly(int(length.split(b":")[1]))
            taken.append((time.perf_counter() - began) * 1000)
            if not answer.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"{answer.splitlines()[0]!r}: {said[:200]!r}")
        writer.close()

    assert EVENT_TYPE in path
    ready()
    clock = Clock()
    await asyncio.gather(*(connection() for _ in range(wanted["connections"])))
    taken.sort()
    percentiles = {f"p{share}": taken[min(len(taken) - 1, int(len(taken) * share / 100))] for share in (50, 99)}
    clock.report(requests * batch, **percentiles)


if __name__ == "__main__":
    uvloop.run(main())
