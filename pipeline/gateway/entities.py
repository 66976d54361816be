"""`GET /consumers` and `GET /subscriptions`. In: nothing. Out: worker processes, and who takes which events."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pipeline.gateway.parts import Parts
from pipeline.gateway.problems import refused
from pipeline.observe.consumers import ConsumerView, SubscriptionView, consumers, subscriptions
from pipeline.observe.stores import Stores


def routes(parts: Parts, stores: Stores) -> APIRouter:
    """Both."""
    router = APIRouter(tags=["read"])

    async def enter(request: Request, response: Response) -> None:
        caller = await parts.door.enter(request)
        if not caller.may_any("read"):
            raise refused(403, "scope", "these credentials have no read: scope")
        response.headers["cache-control"] = "no-store"

    @router.get("/consumers", summary="Worker processes, and what they serve", operation_id="consumers")
    async def all_consumers(request: Request, response: Response) -> list[ConsumerView]:
        await enter(request, response)
        return await consumers(parts.settings, parts.topology, stores)

    @router.get("/subscriptions", summary="Who takes which events", operation_id="subscriptions")
    async def all_subscriptions(request: Request, response: Response) -> list[SubscriptionView]:
        await enter(request, response)
        return await subscriptions(parts.settings, parts.topology, stores)

    return router
