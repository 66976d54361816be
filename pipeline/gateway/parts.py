"""What the routes work with. In: nothing. Out: the values and parts that a gateway is put together from."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request

from pipeline.cache import ResultCache
from pipeline.codec import Codec
from pipeline.gateway.authentication import Authentication
from pipeline.gateway.rate_limit import RateLimit
from pipeline.gateway.scopes import Caller
from pipeline.observe.status import EventStatuses
from pipeline.outbox import Relay
from pipeline.settings import Settings
from pipeline.store.producer import ProducerStore
from pipeline.topology.model import Topology

NOTES = "pipeline.notes"  # in an ASGI scope: what the request's log line says beside status and time


@dataclass(frozen=True, slots=True)
class Options:
    """What a gateway takes. Sizes are bytes, durations seconds."""

    max_body: int = 4 * 1024 * 1024  # of a request
    max_batch: int = 1000  # events of a request
    max_waiting: int = 100_000  # events in the outbox
    body_timeout: float = 30.0  # for a request's body to arrive
    source: str = "gateway"  # CloudEvents source of events that do not say theirs


class Door:
    """Lets callers in: who they are, and whether they have not been here too often."""

    def __init__(self, authentication: Authentication, rate: RateLimit | None) -> None:
        self._authentication = authentication
        self._rate = rate

    async def enter(self, request: Request) -> Caller:
        """The caller. Raises: Refused (401, 429), StoreUnavailable."""
        caller = await self._authentication.caller(request)
        note(request, caller=caller.id)
        if self._rate is not None:
            await self._rate.check(caller)
        return caller


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a route may need."""

    settings: Settings
    topology: Topology
    options: Options
    codec: Codec
    door: Door
    store: ProducerStore
    relay: Relay | None
    cache: ResultCache
    statuses: EventStatuses


def note(request: Request, **said: object) -> None:
    """Have the request's log line say this too. Never anything of a body, never a credential."""
    notes = request.scope.get(NOTES)
    if notes is not None:
        notes.update(said)


def path_part(text: str) -> str:
    """Any text as one part of a URL's path."""
    if text in (".", ".."):  # as they stand, clients take them for a way through the path
        return text.replace(".", "%2E")
    return quote(text, safe="")
