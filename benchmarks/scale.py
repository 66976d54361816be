"""How much is measured. In: full or quick. Out: counts, rounds, seconds.

`FULL` gives figures, in about 40 minutes on two cores. `QUICK` tries every measure once, with counts too small to mean
anything, in two to three minutes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts are events, a run of about 5 to 10 s each."""

    name: str
    rounds: int
    publish: int
    publish_aio_pika: int
    consume: int
    consume_aio_pika: int
    lane: int
    path: int
    peer: float  # of each peer's own count
    offered: tuple[tuple[int, float], ...]  # (events a second, seconds)
    memory: tuple[int, int]  # events before the first and the second look
    idle: float  # s
    starts: int
    growth: int
    growth_bytes: int  # of bodies in one run, at most
    posts: int  # HTTP requests


FULL = Scale(
    name="full",
    rounds=3,
    publish=200_000,
    publish_aio_pika=60_000,
    consume=400_000,
    consume_aio_pika=50_000,
    lane=200_000,
    path=150_000,
    peer=1.0,
    offered=((2_000, 20.0), (5_000, 20.0), (8_000, 20.0), (10_000, 60.0), (12_000, 20.0)),
    memory=(100_000, 1_000_000),
    idle=20.0,
    starts=10,
    growth=80_000,
    growth_bytes=400_000_000,
    posts=12_000,
)

QUICK = Scale(
    name="quick",
    rounds=1,
    publish=10_000,
    publish_aio_pika=3_000,
    consume=20_000,
    consume_aio_pika=3_000,
    lane=20_000,
    path=10_000,
    peer=0.1,
    offered=((2_000, 2.0), (5_000, 2.0), (8_000, 2.0), (10_000, 4.0), (12_000, 2.0)),
    memory=(5_000, 20_000),
    idle=3.0,
    starts=3,
    growth=4_000,
    growth_bytes=20_000_000,
    posts=1_000,
)
