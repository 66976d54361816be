"""What each queue type takes. In: the checked `queues:` entry. Out: RabbitMQ arguments, and problems.

The arguments per type are those RabbitMQ itself lists as the capabilities of its queue types (3.10 to 4.x). RabbitMQ
refuses an argument of another type only when the queue is declared, and ignores one it has never heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.topology.findings import Findings, Path, did_you_mean
from pipeline.topology.keys import DAY_MS, MAX_BYTES, MAX_COUNT, MAX_TTL_MS
from pipeline.topology.kinds import Choice, Flag, Kind, Text, Whole

FRIENDLY = {
    "type": "x-queue-type",
    "ttl": "x-message-ttl",
    "expires": "x-expires",
    "max_length": "x-max-length",
    "max_bytes": "x-max-length-bytes",
    "max_age": "x-max-age",
    "segment_bytes": "x-stream-max-segment-size-bytes",
    "overflow": "x-overflow",
    "dead_letter_exchange": "x-dead-letter-exchange",
    "dead_letter_routing_key": "x-dead-letter-routing-key",
    "dead_letter_strategy": "x-dead-letter-strategy",
    "single_active_consumer": "x-single-active-consumer",
    "delivery_limit": "x-delivery-limit",
    "max_priority": "x-max-priority",
}

_EVERY_TYPE = {"x-queue-type", "x-max-length-bytes", "x-queue-leader-locator"}
_NOT_STREAM = {
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-single-active-consumer",
}
ALLOWED: Mapping[str, frozenset[str]] = {
    "classic": frozenset(
        _EVERY_TYPE | _NOT_STREAM | {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
    ),
    "quorum": frozenset(
        _EVERY_TYPE
        | _NOT_STREAM
        | {
            "x-delivery-limit",
            "x-dead-letter-strategy",
            "x-quorum-initial-group-size",
            "x-quorum-target-group-size",
            "x-max-in-memory-length",
            "x-max-in-memory-bytes",
            "x-consumer-timeout",
            "x-delayed-retry-type",
            "x-delayed-retry-min",
            "x-delayed-retry-max",
        }
    ),
    "stream": frozenset(
        _EVERY_TYPE
        | {"x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size", "x-stream-filter-size-bytes"}
    ),
}
_KNOWN = frozenset().union(*ALLOWED.values())
# What a policy may set: the arguments without their x-, and an exchange's alternate. Plugins bring more.
POLICY_SETTINGS = frozenset(name.removeprefix("x-") for name in _KNOWN) | {"alternate-exchange"}
_RAW_KINDS: Mapping[str, Kind] = {
    "x-message-ttl": Whole(0, MAX_TTL_MS),
    "x-expires": Whole(1, MAX_TTL_MS),
    "x-max-length": Whole(0, MAX_BYTES),
    "x-max-length-bytes": Whole(0, MAX_BYTES),
    "x-max-priority": Whole(1, 255),
    "x-delivery-limit": Whole(0, MAX_COUNT),
    "x-single-active-consumer": Flag(),
    "x-dead-letter-exchange": Text(),
    "x-dead-letter-routing-key": Text(),
    "x-overflow": Choice(("drop-head", "reject-publish", "reject-publish-dlx")),
    "x-dead-letter-strategy": Choice(("at-most-once", "at-least-once")),
}


def queue_arguments(data: Mapping[str, Any], path: Path, findings: Findings) -> dict[str, Any]:
    """The arguments of the queue `data` describes, friendly and raw keys together."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    places: dict[str, Path] = {"x-queue-type": path}
    for key, argument in FRIENDLY.items():
        if key in data:
            arguments[argument] = _age(data[key]) if key == "max_age" else data[key]
            places[argument] = (*path, key)
    for argument, value in data.get("arguments", {}).items():
        place = (*path, "arguments", argument)
        friendly = next((key for key, name in FRIENDLY.items() if name == argument), "")
        if argument == "x-queue-type":
            findings.error(place, "is the key `type`", f"write type: {value}", key=True)
        elif argument in places:
            findings.error(place, f"is there twice, as {friendly} too", key=True)
        elif argument in _RAW_KINDS and (wrong := _wrong_value(_RAW_KINDS[argument], value)):
            findings.error(place, wrong, f"there is the key `{friendly}`")
        elif argument not in _KNOWN and argument.startswith("x-"):
            findings.warn(place, "is no argument RabbitMQ knows; it would be ignored", did_you_mean(argument, _KNOWN))
        arguments.setdefault(argument, value)
        places.setdefault(argument, place)
    _check_type(data, arguments, places, path, findings)
    _check_together(arguments, places, findings)
    return arguments


def _check_type(
    data: Mapping[str, Any], arguments: Mapping[str, Any], places: Mapping[str, Path], path: Path, findings: Findings
) -> None:
    kind = str(arguments["x-queue-type"])
    for argument in arguments:
        if argument in _KNOWN and argument not in ALLOWED[kind]:
            fits = " or ".join(name for name, allowed in ALLOWED.items() if argument in allowed)
            findings.error(
                places[argument], f"{argument} is not for {kind} queues", f"only for {fits} queues", key=True
            )
    if kind == "classic" and data.get("durable") is False:
        findings.warn((*path, "durable"), "RabbitMQ 4.3 and later refuse queues that do not survive a restart")
    if kind != "classic":
        if data.get("durable") is False:
            findings.error((*path, "durable"), f"a {kind} queue is always durable")
        if data.get("auto_delete"):
            findings.error((*path, "auto_delete"), f"a {kind} queue can't be auto-deleted", "use type: classic")
    if kind == "quorum" and arguments.get("x-overflow") == "reject-publish-dlx":
        findings.error(places["x-overflow"], "reject-publish-dlx is not for quorum queues", "use reject-publish")


def _check_together(arguments: Mapping[str, Any], places: Mapping[str, Path], findings: Findings) -> None:
    if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
        place = places["x-dead-letter-routing-key"]
        findings.error(place, "needs a dead_letter_exchange", 'dead_letter_exchange: "" goes straight to a queue')
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        place = places["x-dead-letter-strategy"]
        # RabbitMQ would accept it and quietly fall back to at-most-once.
        if "x-dead-letter-exchange" not in arguments:
            findings.error(place, "at-least-once needs a dead_letter_exchange")
        if arguments.get("x-overflow") != "reject-publish":
            findings.error(place, "at-least-once needs overflow: reject-publish", "add overflow: reject-publish")


def _age(milliseconds: int) -> str:
    """RabbitMQ's text for an age: the largest unit that is exact, seconds at least."""
    seconds = -(-milliseconds // 1000)
    for size, unit in ((DAY_MS // 1000, "D"), (3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _wrong_value(kind: Kind, value: Any) -> str:
    match kind:
        case Whole(minimum=low, maximum=high):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                return f"must be a whole number, {low} to {high}"
        case Flag():
            if not isinstance(value, bool):
                return "must be true or false"
        case Choice(values=values):
            if value not in values:
                return f"must be one of {', '.join(values)}"
        case Text():
            if not isinstance(value, str):
                return "must be text"
    return ""
