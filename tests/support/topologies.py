"""Topologies on a real broker, for tests. In: YAML text and a virtual host. Out: plans and what apply did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.amqp.apply import Applied, apply_plan
from pipeline.amqp.live import live_objects
from pipeline.settings import Settings, load_settings
from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import Topology
from pipeline.topology.plan import Plan, plan
from tests.support.broker import TestVhost

T = TypeVar("T")
DEADLINE = 20.0  # seconds a condition may take on a busy machine


def settings_of(vhost: TestVhost) -> Settings:
    """Settings for this virtual host."""
    return load_settings({"PIPELINE_AMQP_URL": vhost.amqp_url, "PIPELINE_MANAGEMENT_URL": vhost.management_url})


def topology_of(text: str) -> Topology:
    """The topology in `text`; the version line is put in front."""
    return load_text(f"version: 1\n{text}").topology


async def planned(settings: Settings, topology: Topology) -> Plan:
    """What differs between files and broker."""
    return plan(expand(topology), await live_objects(settings))


async def applied(settings: Settings, topology: Topology, prune: bool = False) -> Applied:
    """Plan and apply."""
    return await apply_plan(settings, await planned(settings, topology), prune)


def short(found: Plan) -> list[tuple[str, str, str]]:
    """(kind, object, name) of each step."""
    return [(step.kind, step.object, step.name) for step in found.steps]


async def until(condition: Callable[[], Awaitable[T]], what: str, deadline: float = DEADLINE) -> T:
    """The first true answer of `condition`; fails after the deadline, saying `what` never came."""
    end = time.monotonic() + deadline
    while not (answer := await condition()):
        assert time.monotonic() < end, f"not within {deadline:.0f} s: {what}"
        await asyncio.sleep(0.05)
    return answer
