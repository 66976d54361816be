"""The ASGI application. In: the parts. Out: all routes, errors as problem details, a log line a request."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import PipelineError
from pipeline.gateway import entities, health, reading
from pipeline.gateway.access_log import AccessLog
from pipeline.gateway.document import document
from pipeline.gateway.parts import Parts, note
from pipeline.gateway.problems import Fault, Problem, problem_of
from pipeline.gateway.publishing import Publishing
from pipeline.log import get_logger
from pipeline.observe.stores import Stores

log = get_logger("gateway")

ABOUT = "Takes events, commits them to an outbox, and tells what became of them."
# The page is one file without anything from elsewhere, and shows text only as text.
PAGE_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
EVENTS = "/events"
CODES = {404: "not-found", 405: "method"}


def make_app(parts: Parts, watched: health.Health, stores: Stores) -> ASGIApp:
    """The application."""
    app = FastAPI(
        title="pipeline gateway",
        version=version("event-pipeline"),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            PipelineError: _failed,
            HTTPException: _refused,
            RequestValidationError: _unreadable,
        },
    )
    app.include_router(reading.routes(parts))
    app.include_router(entities.routes(parts, stores))
    app.include_router(health.routes(watched))
    described = to_json(document(app, parts.topology, parts.codec))
    page = files("pipeline.gateway").joinpath("docs.html").read_bytes()

    async def openapi(request: Request) -> Response:
        await parts.door.enter(request)  # what events look like is the business of those who may send or read some
        return Response(described, media_type="application/json", headers={"cache-control": "no-store"})

    async def docs(request: Request) -> Response:
        headers = {"content-security-policy": PAGE_POLICY, "x-frame-options": "DENY"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    app.add_route("/openapi.json", openapi, ["GET"], include_in_schema=False)
    app.add_route("/docs", docs, ["GET"], include_in_schema=False)
    return AccessLog(_front(app, Publishing(parts)), lambda: watched.draining)


def _front(app: ASGIApp, publishing: Publishing) -> ASGIApp:
    """What publishes goes to `publishing` at once, everything else to `app`."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path != EVENTS and not (scope["method"] == "POST" and path.startswith(f"{EVENTS}/")):
            await app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if scope["method"] != "POST":
                raise HTTPException(405, headers={"allow": "POST"})
            answer = await publishing(request, path[len(EVENTS) + 1 :])
        except PipelineError as error:
            answer = await _failed(request, error)
        except HTTPException as error:
            answer = await _refused(request, error)
        await answer(scope, receive, send)

    return front


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, PipelineError)
    problem = problem_of(error)
    note(request, why=problem.code)
    if problem.status >= 500:
        log.warning("request not served", why=problem.code, error=str(error))
    return problem.response()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} is not for this address" if error.status_code == 405 else "nothing is at this address"
    code = CODES.get(error.status_code, "refused")
    headers = dict(error.headers or {})
    if error.status_code == 405 and request.url.path.startswith(f"{EVENTS}/"):
        headers = {"allow": "GET, HEAD, POST"}
    return Problem(error.status_code, code, detail, headers=headers).response()


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [Fault(".".join(str(part) for part in each["loc"]), str(each["msg"])) for each in error.errors()]
    return Problem(400, "request", "the request can't be read", faults).response()
