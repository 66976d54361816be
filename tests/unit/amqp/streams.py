"""Byte streams as a broker sends them, and what must come out of a splitter: worked out with pamqp, the judge."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pamqp.frame
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.common import FieldTable
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from pipeline.amqp.frames import FrameSplitter, split_route

CLAIMED = (1, 2)
THEIRS = 3  # a channel of the client library's
FRAME_MAX = 4096  # bytes
MAX_BODY = 100_000  # bytes

Seen = tuple[object, ...]


class Recorder:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.flushed = 0  # how much had been seen at the last flush

    def delivered(self, tag: int, redelivered: bool, route: bytes, properties: bytes, body: bytes) -> None:
        self.seen.append(("deliver", tag, redelivered, split_route(route), properties, body))

    def returned(self, code: int, text: str, route: bytes, properties: bytes, body: bytes) -> None:
        self.seen.append(("return", code, text, split_route(route), properties, body))

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        self.seen.append(("ack" if ack else "nack", tag, multiple))

    def flush(self) -> None:
        self.flushed = len(self.seen)


class Split:
    """A splitter with two claimed channels, and everything that came out of it."""

    def __init__(self) -> None:
        self.sinks = {channel: Recorder() for channel in CLAIMED}
        self.blocked: list[bool] = []
        self.passed: list[bytes] = []
        self.splitter = FrameSplitter(MAX_BODY, self.blocked.append)
        self.splitter.tune(FRAME_MAX)
        for channel, sink in self.sinks.items():
            self.splitter.claim(channel, sink)

    def feed(self, chunks: Iterable[bytes]) -> Split:
        for chunk in chunks:
            self.passed.append(self.splitter.feed(chunk))
            assert all(sink.flushed == len(sink.seen) for sink in self.sinks.values())
        return self

    @property
    def outcome(self) -> tuple[dict[int, list[Seen]], bytes, list[bool]]:
        return {channel: sink.seen for channel, sink in self.sinks.items()}, b"".join(self.passed), self.blocked


def by_pamqp(stream: bytes) -> tuple[dict[int, list[Seen]], bytes, list[bool]]:
    """What must come out of a splitter, worked out frame by frame with pamqp."""
    seen: dict[int, list[Seen]] = {channel: [] for channel in CLAIMED}
    passed = b""
    blocked = []
    open_content: dict[int, list[object]] = {}
    while stream:
        size, channel, unmarshalled = pamqp.frame.unmarshal(stream)
        raw, stream = stream[:size], stream[size:]
        match unmarshalled:
            case commands.Connection.Blocked() | commands.Connection.Unblocked():
                blocked.append(isinstance(unmarshalled, commands.Connection.Blocked))
        if channel not in CLAIMED:
            passed += raw
            continue
        match unmarshalled:
            case commands.Basic.Deliver() as method:
                route = (method.exchange, method.routing_key)
                open_content[channel] = ["deliver", method.delivery_tag, method.redelivered, route]
            case commands.Basic.Return() as method:
                route = (method.exchange, method.routing_key)
                open_content[channel] = ["return", method.reply_code, method.reply_text, route]
            case ContentHeader() as header:
                open_content[channel] += [raw[19:-1], header.body_size, b""]
            case ContentBody() as body:
                open_content[channel][6] += body.value  # type: ignore[operator]
            case commands.Basic.Ack() | commands.Basic.Nack() as method:
                kind = "ack" if isinstance(method, commands.Basic.Ack) else "nack"
                seen[channel].append((kind, method.delivery_tag, method.multiple))
            case _:
                passed += raw
        content = open_content.get(channel, [])
        if len(content) == 7 and len(content[6]) == content[5]:  # type: ignore[arg-type]
            seen[channel].append((*content[:5], content[6]))
            del open_content[channel]
    return seen, passed, blocked


# --- streams -------------------------------------------------------------------------------------------------------

Frames = list[bytes]
names = st.text("abcdefghij.", max_size=12)
tags = st.integers(1, 2**63 - 1)
bodies = st.binary(max_size=64).flatmap(lambda unit: st.sampled_from([b"", unit, unit * 70, unit * 200]))
headers: st.SearchStrategy[FieldTable] = st.dictionaries(names, st.text(max_size=9) | st.integers(-9, 99), max_size=2)


def marshal(unmarshalled: pamqp.frame.FrameTypes, channel: int) -> bytes:
    return pamqp.frame.marshal(unmarshalled, channel)


def content(channel: int, method: pamqp.frame.FrameTypes, properties: commands.Basic.Properties, body: bytes) -> Frames:
    step = FRAME_MAX - 8
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    head = [marshal(method, channel), marshal(ContentHeader(0, len(body), properties), channel)]
    return head + [marshal(ContentBody(part), channel) for part in parts]


@st.composite
def items(draw: st.DrawFn, channel: int) -> Frames:
    """The frames of one thing the broker may say on a channel."""
    if channel == 0:
        said: list[pamqp.frame.FrameTypes] = [
            Heartbeat(),
            commands.Connection.Blocked("x"),
            commands.Connection.Unblocked(),
        ]
        return [marshal(draw(st.sampled_from(said)), 0)]
    properties = commands.Basic.Properties(message_id=draw(names) or None, headers=draw(headers) or None)
    match draw(st.sampled_from(["deliver", "deliver", "return", "ack", "nack", "other"])):
        case "deliver":
            deliver = commands.Basic.Deliver(draw(names), draw(tags), draw(st.booleans()), draw(names), draw(names))
            return content(channel, deliver, properties, draw(bodies))
        case "return":
            returned = commands.Basic.Return(312, draw(names), draw(names), draw(names))
            return content(channel, returned, properties, draw(bodies))
        case "ack":
            return [marshal(commands.Basic.Ack(draw(tags), draw(st.booleans())), channel)]
        case "nack":
            return [marshal(commands.Basic.Nack(draw(tags), draw(st.booleans())), channel)]
        case _:
            others = [commands.Basic.QosOk(), commands.Basic.ConsumeOk("tag"), commands.Queue.DeclareOk("q", 1, 2)]
            return [marshal(draw(st.sampled_from(others)), channel)]


@st.composite
def streams(draw: st.DrawFn, max_items: int = 8) -> bytes:
    """What a broker may send: the frames of several channels, interleaved at will."""
    waiting: list[Frames] = []
    for channel in (0, *CLAIMED, THEIRS):
        said = draw(st.lists(items(channel), max_size=max_items))
        waiting.append([each for frames in said for each in frames])
    stream = b""
    while any(waiting):
        frames = draw(st.sampled_from([each for each in waiting if each]))
        stream += frames.pop(0)
    return stream


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    return [stream[start:stop] for start, stop in pairwise([0, *sorted(places), len(stream)])]


def moderate_stream() -> bytes:
    """All there is: contents without, with one and with several body frames, two channels interleaved, confirms."""
    properties = commands.Basic.Properties(message_id="id-1", headers={"a": "b", "n": 1})
    long = content(1, commands.Basic.Deliver("t", 1, False, "events", "order.created"), properties, b"x" * 5000)
    empty = content(2, commands.Basic.Return(312, "NO_ROUTE", "events", "nobody"), properties, b"")
    small = content(2, commands.Basic.Deliver("t", 7, True, "", "payments"), commands.Basic.Properties(), b"{}")
    theirs = content(THEIRS, commands.Basic.GetOk(1, False, "", "q", 0), properties, b"not ours")
    others = [
        marshal(Heartbeat(), 0),
        marshal(commands.Basic.ConsumeOk("t"), 1),
        marshal(commands.Connection.Blocked("memory"), 0),
        marshal(commands.Basic.Ack(12, True), 2),
        marshal(commands.Connection.Unblocked(), 0),
        marshal(commands.Basic.Nack(13, False), 2),
    ]
    first = [others[0], long[0], empty[0], others[1], long[1], theirs[0], empty[1], *small, others[2], long[2]]
    return b"".join([*first, *theirs[1:], others[3], long[3], others[4], others[5]])
