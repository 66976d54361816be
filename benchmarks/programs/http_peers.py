"""What the gateway is compared with. In: which one. Out: a server of the same kind that does less.

`direct` validates and publishes with confirm, and keeps nothing: what the outbox costs. `bare` reads the body, in a
FastAPI handler as its documentation shows one: what HTTP in Python costs by itself.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic_core import to_json

from benchmarks.payload import EVENT_TYPE
from pipeline.amqp.publisher import Publisher
from pipeline.event import Event, new_id, utc_now
from pipeline.gateway.http_protocol import BoundedHttpProtocol

PATH = f"/events/{EVENT_TYPE}"


def bare() -> FastAPI:
    """Reads the body."""
    app = FastAPI()

    @app.post(PATH, status_code=202)
    async def take(request: Request) -> dict[str, Any]:
        return {"bytes": len(await request.body())}

    return app


def direct() -> FastAPI:
    """Publishes at once."""
    publisher = Publisher()
    app = FastAPI()

    async def take(request: Request) -> Response:
        data = await request.body()
        lines = data.split(b"\n") if request.headers["content-type"] == "application/x-ndjson" else [data]
        now = utc_now()
        events = [Event(EVENT_TYPE, each, new_id(), "direct", now) for each in lines]
        errors = await publisher.send([publisher.codec.encode_raw(event) for event in events])
        if errors:
            raise next(iter(errors.values()))
        return Response(to_json({"ids": [event.id for event in events]}), 202, media_type="application/json")

    app.add_route(PATH, take, ["POST"])
    return app


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=2048)
    app = {"bare": bare, "direct": direct}[sys.argv[1]]()
    config = uvicorn.Config(app, http=BoundedHttpProtocol, ws="none", log_level="warning", access_log=False)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
