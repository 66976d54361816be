"""AMQP 0-9-1 frames as bytes. In: chunks of the broker's byte stream. Out: deliveries and confirms, decoded in bulk.

`FrameSplitter` takes the frames of the channels that are claimed for the fast path out of the stream and leaves every
other byte to the client library, unchanged and in order. Layout after the AMQP 0-9-1 specification, section 4.2.3:
type (1), channel (2), size (4), payload, end byte 0xCE.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Protocol

from pipeline.errors import ProtocolViolation
from pipeline.field_table import decode_short_string, short_string

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
END = 0xCE
OVERHEAD = 8  # bytes of a frame that are not payload
HEADER_OVERHEAD = OVERHEAD + 12  # bytes of a content header's frame that are not properties
USUAL_FRAME_MAX = 131_072  # bytes; RabbitMQ's own default
MOST_BYTES = 2**32 - 1  # what a frame's size field can say; `frame_max` 0 means no other limit
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_frame_start = Struct(">BHI")
_u16 = Struct(">H")
_u64 = Struct(">Q")
_header_start = Struct(">HHQH")

BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_ACK = 60 << 16 | 80
BASIC_NACK = 60 << 16 | 120
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61
CONTENT = frozenset({BASIC_RETURN, BASIC_DELIVER})
OWNED = frozenset({BASIC_RETURN, BASIC_DELIVER, BASIC_ACK, BASIC_NACK})
_u32 = Struct(">I")


class ChannelSink(Protocol):
    """Who owns a claimed channel. Called from inside the transport's read; must only note things down."""

    def delivered(self, tag: int, redelivered: bool, route: bytes, properties: bytes, body: bytes) -> None: ...

    def returned(self, code: int, text: str, route: bytes, properties: bytes, body: bytes) -> None: ...

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None: ...

    def flush(self) -> None:
        """All of a chunk has been handed over: wake whoever waits."""


@dataclass(slots=True)
class _Content:
    """A deliver or return whose header and body have not all arrived."""

    method: int
    fields: bytes  # the method frame's payload
    properties: bytes = b""
    size: int = -1  # bytes of body to come in all; -1 before the header
    got: int = 0
    parts: list[bytes] = field(default_factory=list)


class FrameSplitter:
    """Splits one connection's inbound bytes.

    `feed` returns the bytes that are the client library's: always whole frames. `max_body` bounds what one message may
    announce, `tune` what one frame may (both in bytes). `blocked` hears when the broker begins and ends to block us.
    """

    def __init__(self, max_body: int, blocked: Callable[[bool], None] | None = None) -> None:
        self._max_frame = USUAL_FRAME_MAX  # until tuned; the frames before that have a few hundred bytes
        self._max_body = max_body
        self._blocked = blocked
        self._sinks: dict[int, ChannelSink] = {}
        self._contents: dict[int, _Content] = {}
        self._parts: list[bytes] = []  # of a frame that is not all here
        self._missing = 0  # bytes it lacks, as far as is known

    def tune(self, frame_max: int) -> None:
        """What was agreed on: the bytes of the largest frame, 0 for no limit."""
        self._max_frame = frame_max or self._max_body + OVERHEAD

    def claim(self, channel: int, sink: ChannelSink) -> None:
        """From now on the content and confirms of `channel` go to `sink`."""
        self._sinks[channel] = sink
        self._contents.pop(channel, None)

    def release(self, channel: int, sink: ChannelSink) -> None:
        """The channel is the client library's again, unless somebody else has claimed that number since."""
        if self._sinks.get(channel) is sink:
            del self._sinks[channel]
            self._contents.pop(channel, None)

    def feed(self, chunk: bytes) -> bytes:
        """Take `chunk`; hand owned frames to their sinks; return what the client library must see.

        Raises: ProtocolViolation for bytes that can't be AMQP. The connection is then of no more use.
        """
        if len(chunk) < self._missing:
            # Joined once when it is complete: joining it with every chunk would take quadratic time.
            self._parts.append(chunk)
            self._missing -= len(chunk)
            return b""
        if self._parts:
            self._parts.append(chunk)
            data = b"".join(self._parts)
            self._parts.clear()
        else:
            data = chunk
        others: list[bytes] = []  # runs of bytes that are not ours
        touched: dict[int, ChannelSink] = {}
        at = run = 0
        end = len(data)
        sinks, max_frame = self._sinks, self._max_frame
        self._missing = 0
        try:
            while end - at >= OVERHEAD:
                kind, channel, size = _frame_start.unpack_from(data, at)
                if size + OVERHEAD > max_frame or kind not in KINDS:
                    raise _bad_frame(kind, channel, size, max_frame)
                stop = at + 7 + size
                if stop >= end:
                    self._missing = stop + 1 - end
                    break
                if data[stop] != END:
                    raise ProtocolViolation(
                        f"frame of type {kind} on channel {channel} ends with byte {data[stop]:#04x}, not 0xce"
                    )
                sink = sinks.get(channel)
                if sink is None:
                    if channel == 0 and kind == METHOD and size >= 4 and self._blocked is not None:
                        self._watch_blocked(data, at + 7)
                    at = stop + 1
                elif self._owned(kind, channel, sink, data, at + 7, stop):
                    if run < at:
                        others.append(data[run:at])
                    at = run = stop + 1
                    touched[channel] = sink
                else:
                    at = stop + 1
        finally:
            for sink in touched.values():
                sink.flush()
        if run < at:
            others.append(data[run:at])
        if at < end:
            self._parts.append(data[at:])
            self._missing = self._missing or OVERHEAD - (end - at)
        return b"".join(others)

    def _watch_blocked(self, data: bytes, at: int) -> None:
        (method,) = _u32.unpack_from(data, at)
        if self._blocked is not None:
            if method == CONNECTION_BLOCKED:
                self._blocked(True)
            elif method == CONNECTION_UNBLOCKED:
                self._blocked(False)

    def _owned(self, kind: int, channel: int, sink: ChannelSink, data: bytes, at: int, stop: int) -> bool:
        """Handle one whole frame of a claimed channel; False when it is the client library's."""
        content = self._contents.get(channel)
        if kind == METHOD:
            if stop - at < 4:
                raise ProtocolViolation(f"method frame of {stop - at} bytes on channel {channel}")
            (method,) = _u32.unpack_from(data, at)
            if method not in OWNED:
                return False  # channel.close may well come in the middle of a content
            if content is not None:
                raise ProtocolViolation(f"method on channel {channel} in the middle of a message's content")
            if method in CONTENT:
                self._contents[channel] = _Content(method, data[at + 4 : stop])
            elif stop - at != 13:
                raise ProtocolViolation(f"confirm of {stop - at} bytes on channel {channel}")
            else:
                sink.confirmed(_u64.unpack_from(data, at + 4)[0], bool(data[at + 12] & 1), method == BASIC_ACK)
            return True
        if content is None:
            raise ProtocolViolation(f"frame of type {kind} on channel {channel} without a method before it")
        if kind == HEADER:
            self._header(content, channel, data, at, stop)
        elif kind == BODY:
            if content.size < 0:
                raise ProtocolViolation(f"body frame on channel {channel} before its header")
            if at < stop:  # empty ones, however many, must not fill memory
                content.parts.append(data[at:stop])
            content.got += stop - at
            if content.got > content.size:
                raise ProtocolViolation(
                    f"message on channel {channel} has {content.got} bytes of body; {content.size} were announced"
                )
        else:
            raise ProtocolViolation(f"frame of unknown type {kind} on channel {channel}")
        if content.got == content.size:
            del self._contents[channel]
            _finish(content, channel, sink)
        return True

    def _header(self, content: _Content, channel: int, data: bytes, at: int, stop: int) -> None:
        if content.size >= 0 or stop - at < 14:
            raise ProtocolViolation(f"content header on channel {channel} is out of place or too short")
        class_id, _, size, _ = _header_start.unpack_from(data, at)
        if class_id != 60:
            raise ProtocolViolation(f"content header of unknown class {class_id} on channel {channel}")
        if size > self._max_body:
            raise ProtocolViolation(f"message of {size} bytes on channel {channel}; at most {self._max_body} are taken")
        content.size = size
        content.properties = data[at + 12 : stop]


def _finish(content: _Content, channel: int, sink: ChannelSink) -> None:
    body = content.parts[0] if len(content.parts) == 1 else b"".join(content.parts)
    fields = content.fields
    try:
        if content.method == BASIC_DELIVER:
            at = 1 + fields[0]  # behind the consumer tag: a claimed channel has one consumer
            (tag,) = _u64.unpack_from(fields, at)
            sink.delivered(tag, fields[at + 8] != 0, fields[at + 9 :], content.properties, body)
        else:
            (code,) = _u16.unpack_from(fields, 0)
            text, stop = decode_short_string(fields, 2)
            sink.returned(code, text, fields[stop:], content.properties, body)
    except (IndexError, ValueError, struct.error) as error:
        raise ProtocolViolation(f"method frame on channel {channel} can't be read: {error}") from error


def _bad_frame(kind: int, channel: int, size: int, max_frame: int) -> ProtocolViolation:
    if kind not in KINDS:
        return ProtocolViolation(f"frame of unknown type {kind} on channel {channel}")
    return ProtocolViolation(f"frame of {size} bytes on channel {channel}; at most {max_frame} were agreed")


def split_route(route: bytes) -> tuple[str, str]:
    """(exchange, routing key) of the two short strings in `route`.

    Raises: IndexError, ValueError when it is anything else.
    """
    exchange, middle = decode_short_string(route, 0)
    routing_key, end = decode_short_string(route, middle)
    if end != len(route):
        raise ValueError(f"{len(route) - end} bytes left over")
    return exchange, routing_key


# --- writing -------------------------------------------------------------------------------------------------------


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One whole frame."""
    return _frame_start.pack(kind, channel, len(payload)) + payload + b"\xce"


def publish_method(channel: int, exchange: str, routing_key: str) -> bytes:
    """A basic.publish frame, mandatory. Raises: ValueError when a name is over 255 bytes."""
    fields = short_string(exchange) + short_string(routing_key)
    return frame(METHOD, channel, b"\x00\x3c\x00\x28\x00\x00" + fields + b"\x01")


def content_frames(channel: int, properties: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """The header frame and as many body frames as `frame_max` (bytes, 0 for no limit) asks for, in pieces."""
    size = len(body)
    pieces = [
        _frame_start.pack(HEADER, channel, 12 + len(properties)),
        b"\x00\x3c\x00\x00",
        _u64.pack(size),
        properties,
        b"\xce",
    ]
    step = frame_max - OVERHEAD if frame_max else size
    if size <= step:
        if size:
            pieces += (_frame_start.pack(BODY, channel, size), body, b"\xce")
        return pieces
    for at in range(0, size, step):
        part = body[at : at + step]
        pieces += (_frame_start.pack(BODY, channel, len(part)), part, b"\xce")
    return pieces


def properties_limit(frame_max: int) -> int:
    """Bytes of properties that a message may carry: AMQP gives them one frame and no more."""
    return (frame_max or MOST_BYTES) - HEADER_OVERHEAD


def ack_frame(channel: int, tag: int, multiple: bool = False) -> bytes:
    """A basic.ack frame."""
    return frame(METHOD, channel, b"\x00\x3c\x00\x50" + _u64.pack(tag) + (b"\x01" if multiple else b"\x00"))


def nack_frames(channel: int, tags: Iterable[int]) -> bytes:
    """basic.nack frames that put the deliveries back into their queue."""
    return b"".join([frame(METHOD, channel, b"\x00\x3c\x00\x78" + _u64.pack(tag) + b"\x02") for tag in tags])
