"""A subscription's `retry` key → `RetryPolicy`. In: checked data. Out: attempts and the delays between them.

Every distinct delay becomes a queue, which is why their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.topology.findings import Findings, Path
from pipeline.topology.keys import DEFAULT_ATTEMPTS, DEFAULT_DELAYS_MS, MAX_TTL_MS
from pipeline.topology.model import RetryPolicy, duration_text

MAX_RUNGS = 32  # retry queues of one subscription
DEFAULT_FACTOR = 2


def resolve_retry(data: Mapping[str, Any] | None, path: Path, findings: Findings) -> RetryPolicy:
    """The policy `data` asks for; what can't be is noted in `findings`."""
    if data is None:
        return _policy(DEFAULT_ATTEMPTS, DEFAULT_DELAYS_MS)
    growing = [name for name in ("initial", "factor", "max") if name in data]
    if "delays" in data and growing:
        findings.error(
            (*path, growing[0]), f"can't stand beside {'.'.join(map(str, path))}.delays", "use one", key=True
        )
    elif growing and "initial" not in data:
        findings.error((*path, growing[0]), "needs initial, the first delay", "add initial: 1s", key=True)
    elif growing:
        return _growing(data, path, findings)
    return _listed(data, path, findings)


def _listed(data: Mapping[str, Any], path: Path, findings: Findings) -> RetryPolicy:
    delays: list[int] | None = data.get("delays")
    if delays is None:
        attempts = data.get("attempts", DEFAULT_ATTEMPTS)
        return _policy(attempts, DEFAULT_DELAYS_MS[: attempts - 1])
    attempts = data.get("attempts", len(delays) + 1)
    if len(delays) > attempts - 1:
        room = f"{attempts} attempt{'s leave' if attempts > 1 else ' leaves'} room for {attempts - 1}"
        message = f"{room} of these {len(delays)} delays" if len(delays) > 1 else f"{room} delays"
        hint = f"attempts: {len(delays) + 1} uses them all; attempts counts the first try too"
        findings.error((*path, "delays", attempts - 1), message, hint)
    elif len(set(delays)) > MAX_RUNGS:
        _too_many(len(set(delays)), (*path, "delays"), findings)
    return _policy(attempts, delays)


def _growing(data: Mapping[str, Any], path: Path, findings: Findings) -> RetryPolicy:
    attempts: int = data.get("attempts", DEFAULT_ATTEMPTS)
    initial: int = data["initial"]
    highest: int = data.get("max", MAX_TTL_MS)
    if attempts == 1:
        findings.error((*path, "initial"), "1 attempt leaves no room for a delay", "attempts counts the first try too")
        return _policy(1, ())
    if highest < initial:
        shown, first = duration_text(highest / 1000), duration_text(initial / 1000)
        findings.error((*path, "max"), f"is {shown}, below the initial delay of {first}")
        return _policy(attempts, ())
    delays = tuple(_series(initial, data.get("factor", DEFAULT_FACTOR), highest, attempts - 1))
    if delays[-1] == MAX_TTL_MS and "max" not in data:
        limit = duration_text(MAX_TTL_MS // 86_400_000 * 86_400)
        message = f"attempt {len(delays) + 1} would wait longer than RabbitMQ can ({limit})"
        findings.error((*path, "factor" if "factor" in data else "initial"), message, "add max, such as max: 1h")
    elif len(set(delays)) > MAX_RUNGS:
        _too_many(len(set(delays)), path, findings)
    return _policy(attempts, delays)


def _series(initial: int, factor: float, highest: int, count: int) -> Iterator[int]:
    """At most `count` growing delays; ends early where they stop growing, since the last one repeats."""
    exact: float = initial
    delay = 0
    for _ in range(count):
        previous, delay = delay, min(round(exact), highest)
        if delay == previous and (delay == highest or factor == 1):
            return
        yield delay
        exact *= factor


def _too_many(rungs: int, path: Path, findings: Findings) -> None:
    message = f"makes {rungs} retry queues; {MAX_RUNGS} is the most"
    findings.error(path, message, "use fewer different delays", key=True)


def _policy(attempts: int, delays: tuple[int, ...] | list[int]) -> RetryPolicy:
    return RetryPolicy(attempts, tuple(delay / 1000 for delay in delays))
