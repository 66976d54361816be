"""Streams that are not AMQP, or AMQP meant to harm: refused with a name, at once, without taking memory or time."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from pipeline.amqp.frames import BODY, HEADER, METHOD, USUAL_FRAME_MAX, FrameSplitter, frame
from pipeline.errors import ProtocolViolation
from tests.unit.amqp.streams import FRAME_MAX, MAX_BODY, Recorder, Split, cut, marshal, streams

DELIVER = frame(METHOD, 1, b"\x00\x3c\x00\x3c" + b"\x01t" + (1).to_bytes(8) + b"\x00" + b"\x00" + b"\x01q")


def header_frame(size: int, class_id: int = 60) -> bytes:
    return frame(HEADER, 1, class_id.to_bytes(2) + b"\x00\x00" + size.to_bytes(8) + b"\x00\x00")


HOSTILE = {
    "wrong end byte": DELIVER[:-1] + b"\x00",
    "wrong end byte on a channel not ours": frame(METHOD, 9, bytes(12))[:-1] + b"\xcf",
    "unknown frame type": b"\x07" + DELIVER[1:],
    "unknown frame type on a channel not ours": frame(4, 9, bytes(12)),
    "unknown frame type, all of it": frame(200, 1, b""),
    "frame over frame_max": frame(BODY, 9, bytes(FRAME_MAX)),
    "frame of 4 GB": b"\x03\x00\x01\xff\xff\xff\xff" + bytes(9),
    "no AMQP at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "header before any method": header_frame(5),
    "body before any method": frame(BODY, 1, b"body"),
    "body before its header": DELIVER + frame(BODY, 1, b"body"),
    "heartbeat on a channel": frame(8, 1, b""),
    "two headers": DELIVER + header_frame(5) + header_frame(5),
    "header of another class": DELIVER + header_frame(5, class_id=50),
    "header too short": DELIVER + frame(HEADER, 1, bytes(13)),
    "more body than announced": DELIVER + header_frame(5) + frame(BODY, 1, b"123456"),
    "more body than announced, later": DELIVER + header_frame(5) + frame(BODY, 1, b"12") + frame(BODY, 1, b"3456"),
    "announced over the limit": DELIVER + header_frame(MAX_BODY + 1),
    "announced absurdly": DELIVER + header_frame(2**64 - 1),
    "a method inside a content": DELIVER + DELIVER,
    "a confirm inside a content": DELIVER + header_frame(5) + marshal(commands.Basic.Ack(1), 1),
    "method without a number": frame(METHOD, 1, b"\x00\x3c"),
    "deliver without fields": frame(METHOD, 1, b"\x00\x3c\x00\x3c") + header_frame(0),
    "deliver cut in its tag": frame(METHOD, 1, b"\x00\x3c\x00\x3c\x01t\x00\x00") + header_frame(0),
    "deliver cut in its routing key": frame(METHOD, 1, DELIVER[7:-2]) + header_frame(0),
    "deliver with bytes left over": frame(METHOD, 1, DELIVER[7:-1] + b"more") + header_frame(0),
    "return without fields": frame(METHOD, 1, b"\x00\x3c\x00\x32") + header_frame(0),
    "return cut in its text": frame(METHOD, 1, b"\x00\x3c\x00\x32\x01\x38\x09NO") + header_frame(0),
    "return cut in its route": frame(METHOD, 1, b"\x00\x3c\x00\x32\x01\x38\x02NO\x05e") + header_frame(0),
    "confirm too short": frame(METHOD, 1, b"\x00\x3c\x00\x50\x00\x00"),
    "confirm too long": frame(METHOD, 1, b"\x00\x3c\x00\x50" + bytes(10)),
}


@pytest.mark.parametrize("stream", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_frames_are_refused_in_one_piece_and_byte_by_byte(stream: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Split().feed([stream])
    with pytest.raises(ProtocolViolation):
        Split().feed(cut(stream, range(1, len(stream))))


@given(streams(max_items=3), st.data())
def test_damaged_streams_are_read_or_refused(stream: bytes, data: st.DataObject) -> None:
    damaged = bytearray(stream or b"\x00")
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    chunks = cut(bytes(damaged), data.draw(st.lists(st.integers(0, len(damaged)), max_size=3)))

    with suppress(ProtocolViolation):  # the one thing that may be raised
        Split().feed(chunks)


def test_what_came_before_a_violation_is_handed_over() -> None:
    split = Split()

    with pytest.raises(ProtocolViolation):
        split.feed([marshal(commands.Basic.Ack(1), 1) + HOSTILE["two headers"]])

    assert split.sinks[1].seen == [("ack", 1, False)]
    assert split.sinks[1].flushed == 1


def peak_memory(splitter: FrameSplitter, chunks: Sequence[bytes]) -> int:
    """The most bytes that feeding took, violation or not."""
    tracemalloc.start()
    try:
        with suppress(ProtocolViolation):
            for chunk in chunks:
                splitter.feed(chunk)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_stream_that_announces_much_takes_no_memory_for_it() -> None:
    endless = [b"\x03\x00\x09\xff\xff\xff\xfe", *[bytes(10_000)] * 1000]

    assert peak_memory(Split().splitter, endless) < 1_000_000


def test_empty_body_frames_without_end_take_no_memory() -> None:
    split = Split()
    split.feed([DELIVER + header_frame(1)])

    assert peak_memory(split.splitter, [frame(BODY, 1, b"") * 500] * 100) < 100_000


def test_before_tuning_frames_are_bounded_as_well() -> None:
    splitter = FrameSplitter(MAX_BODY * 1000)

    with pytest.raises(ProtocolViolation):
        splitter.feed(b"\x01\x00\x00" + (USUAL_FRAME_MAX + 1).to_bytes(4) + bytes(9))


def test_a_long_frame_in_small_chunks_takes_time_as_it_is_long() -> None:
    # given a broker without a limit for frames
    splitter, sink = FrameSplitter(32_000_000), Recorder()
    splitter.tune(0)
    splitter.claim(1, sink)
    body = bytes(24_000_000)
    stream = DELIVER + header_frame(len(body)) + frame(BODY, 1, body)
    # when a body of 24 MB comes in chunks of 1 kB: joined with each of them, that were 288 GB to copy
    started = time.monotonic()
    for at in range(0, len(stream), 1000):
        splitter.feed(stream[at : at + 1000])
    # then it does not take minutes
    assert len(sink.seen) == 1
    assert time.monotonic() - started < 5
