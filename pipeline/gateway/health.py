"""`/healthz` and `/readyz`. In: nothing. Out: whether this process lives, and whether to send it requests.

Not ready is only who can't take events: without the producer's database, or about to end. A broker, a cache or a
worker's database that is away makes it `degraded`, and ready: the outbox takes events, and a gateway that answers some
requests is better than none. Open to everybody, hence no addresses and no errors in it: the log has them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from fastapi import APIRouter, Response

from pipeline.amqp.session import Session
from pipeline.gateway.parts import Parts
from pipeline.log import get_logger

log = get_logger("gateway")

REMEMBERED = 1.0  # seconds: however many ask, dependencies are asked once
PATIENCE = 2.0  # seconds a dependency may take
DATABASE = "database"
NOBODY = "pipeline-ready-check"  # an event id that no event has


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether to send requests; each dependency is "ok" or "away"."""

    status: str  # ready | degraded | not ready | draining
    dependencies: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The HTTP status."""
        return 200 if self.status in ("ready", "degraded") else 503


class Health:
    """Looks at the dependencies."""

    def __init__(self, parts: Parts, session: Session | None) -> None:
        self._parts = parts
        self._session = session  # None where this gateway has no relay, and so no use for a broker
        self._found: dict[str, str | None] = {}
        self._looked = -REMEMBERED
        self._looking = asyncio.Lock()
        self.draining = False

    async def readiness(self) -> Readiness:
        """As it is now, or was a second ago."""
        if self.draining:
            return Readiness("draining")
        async with self._looking:
            if time.monotonic() - self._looked >= REMEMBERED:
                before, self._found = self._found, await self._look()
                self._looked = time.monotonic()
                for name, error in self._found.items():
                    if bool(error) != bool(before.get(name)):
                        log.warning("dependency away" if error else "dependency back", name=name, error=error)
        away = {name for name, error in self._found.items() if error}
        status = "not ready" if DATABASE in away else "degraded" if away else "ready"
        return Readiness(status, {name: "away" if error else "ok" for name, error in self._found.items()})

    async def _look(self) -> dict[str, str | None]:
        parts = self._parts
        asked: dict[str, Awaitable[object]] = {DATABASE: parts.store.event(NOBODY)}
        if self._session is not None:
            asked["broker"] = self._session.lane()
        for name in parts.topology.subscriptions:
            asked[f"{DATABASE}:{name}"] = parts.statuses.result(name, NOBODY)
        names = list(asked)
        answers = asyncio.gather(*(_error_of(each) for each in asked.values()))
        errors, caches = await asyncio.gather(answers, self._caches())
        return dict(zip(names, errors, strict=True)) | caches

    async def _caches(self) -> dict[str, str | None]:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._parts.cache.check()
        except Exception as error:  # noqa: BLE001 - as with the others
            return {"cache": _words(error)}
        if len(found) == 1:
            return {"cache": next(iter(found.values()))}
        return {f"cache:{number}": error for number, error in enumerate(found.values(), 1)}


async def _error_of(asked: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE):
            await asked
    except Exception as error:  # noqa: BLE001 - whatever it is, it does not answer
        return _words(error)
    return None


def _words(error: Exception) -> str:
    return str(error) or f"no answer within {PATIENCE:g} s"


def routes(health: Health) -> APIRouter:
    """Both."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process lives", operation_id="alive")
    async def alive(response: Response) -> dict[str, str]:
        response.headers["cache-control"] = "no-store"
        return {"status": "alive"}

    @router.get(
        "/readyz", summary="Whether to send it requests", operation_id="ready", responses={503: {"model": Readiness}}
    )
    async def ready(response: Response) -> Readiness:
        found = await health.readiness()
        response.status_code = found.code
        response.headers["cache-control"] = "no-store"
        return found

    return router
