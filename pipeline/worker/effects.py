"""What a handler returned → what will be written. In: any return value. Out: `Effects`, ready for one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from pipeline.codec import Codec
from pipeline.errors import InvalidPayload
from pipeline.event import AnyEvent, Event, utc_now
from pipeline.store.writes import Effects, Outgoing, Write, is_write
from pipeline.worker.context import Context, Publish, Result


class EffectsBuilder:
    """Turns return values of one subscription's handlers into effects."""

    def __init__(self, subscription: str, codec: Codec, write_json: Callable[[Any], bytes]) -> None:
        self._subscription = subscription
        self._codec = codec
        self._write_json = write_json

    def build(self, event: AnyEvent, value: Any, context: Context | None, key: str = "") -> Effects:
        """The effects of handling `event`; `key` is what stands for it in the inbox, its id unless given.

        Raises: InvalidPayload when the value has no JSON form or a follow-up event does not fit its model.
        """
        key = key or event.id
        follow_ups = context.follow_ups if context is not None else None
        if not follow_ups:  # the usual cases, without detours
            if value is None:
                return Effects(key, event.type)
            if type(value) is dict:
                return Effects(key, event.type, (), self._write_json(value), (), event.id)
            if is_write(value):
                return Effects(key, event.type, (value,))
        published: list[Publish] = list(follow_ups or ())
        values = value if isinstance(value, (list, tuple)) else (value,)
        special = [each for each in values if isinstance(each, (Publish, Result)) or is_write(each)]
        results = [each.value for each in special if isinstance(each, Result)]
        if not special and value is not None:
            results = [value]
        elif any(each is not None and not (isinstance(each, (Publish, Result)) or is_write(each)) for each in values):
            raise InvalidPayload(
                f"the handler of {event.type!r} returned a list that mixes rows or Publish with other values; return "
                "JSON-able values by themselves, or as Result(value)"
            )
        if len(results) > 1:
            raise InvalidPayload(f"the handler of {event.type!r} returned {len(results)} Results; an event has one")
        result = self._write_json(results[0]) if results else None
        published += [each for each in special if isinstance(each, Publish)]
        writes: list[Write] = [each for each in special if not isinstance(each, (Publish, Result))]
        outgoing = [self._outgoing(event, each, index, key) for index, each in enumerate(published)]
        return Effects(key, event.type, writes, result, outgoing, event.id)

    def _outgoing(self, cause: AnyEvent, publish: Publish, index: int, key: str) -> Outgoing:
        message = self._codec.encode(
            Event(
                publish.type,
                publish.data,
                publish.id or derived_id(self._subscription, key, index),
                self._subscription,
                publish.time or utc_now(),
                publish.subject,
                # CloudEvents has no standard word for it; `causationid` is what the field calls the event before.
                extensions={"causationid": cause.id},
            ),
            publish.due,
        )
        return Outgoing(message.exchange, message.routing_key, message.message_id, message.body, message.properties)


def derived_id(subscription: str, key: str, index: int) -> str:
    """The id of a follow-up: the same whenever the same event is handled again, another in each forced replay."""
    return hashlib.sha256(f"{subscription}\n{key}\n{index}".encode()).hexdigest()[:32]
