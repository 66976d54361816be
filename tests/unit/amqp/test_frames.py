"""The frame splitter against pamqp: whatever way a stream is cut, the same comes out, in the same order."""

from __future__ import annotations

import pamqp.frame
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from pipeline.amqp.frames import FrameSplitter
from tests.unit.amqp.streams import (
    CLAIMED,
    MAX_BODY,
    Recorder,
    Split,
    by_pamqp,
    content,
    cut,
    marshal,
    moderate_stream,
    streams,
)


@given(streams(), st.data())
@settings(max_examples=150)
def test_a_stream_cut_anywhere_gives_what_pamqp_reads_from_it(stream: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))

    split = Split().feed(cut(stream, places))

    assert split.outcome == by_pamqp(stream)


def test_a_cut_at_every_place_makes_no_difference() -> None:
    stream = moderate_stream()
    expected = by_pamqp(stream)
    assert [len(expected[0][channel]) for channel in CLAIMED] == [1, 4]

    for place in range(len(stream) + 1):
        assert Split().feed(cut(stream, [place])).outcome == expected, f"cut at {place}"
    for step in (1, 2, 3, 7, 8, 9, 100):
        assert Split().feed(cut(stream, range(step, len(stream), step))).outcome == expected, f"every {step} bytes"


def test_what_is_passed_on_is_whole_frames_at_any_moment() -> None:
    stream = moderate_stream()

    for each in Split().feed(cut(stream, range(5, len(stream), 5))).passed:
        rest = each
        while rest:
            size, _, _ = pamqp.frame.unmarshal(rest)
            rest = rest[size:]


def test_nothing_is_taken_from_channels_that_nobody_claimed() -> None:
    stream = moderate_stream()
    splitter = FrameSplitter(MAX_BODY)

    assert b"".join(splitter.feed(each) for each in cut(stream, range(100, len(stream), 100))) == stream


def test_a_channel_may_be_claimed_while_a_frame_is_half_here() -> None:
    # given a connection on which nothing is claimed yet
    splitter, sink = FrameSplitter(MAX_BODY), Recorder()
    other = marshal(commands.Queue.DeclareOk("q", 1, 2), 1)
    passed = splitter.feed(other[:10])
    # when the channel is claimed in the middle of a frame
    splitter.claim(1, sink)
    passed += splitter.feed(other[10:] + marshal(commands.Basic.Ack(1), 1))
    # then the frame is the client library's, and what comes after it is ours
    assert passed == other
    assert sink.seen == [("ack", 1, False)]


def test_a_released_channel_is_the_client_librarys_again() -> None:
    splitter, sink = FrameSplitter(MAX_BODY), Recorder()
    splitter.claim(1, sink)
    confirm = marshal(commands.Basic.Ack(1), 1)

    splitter.release(1, sink)

    assert splitter.feed(confirm) == confirm


def test_releasing_late_does_not_take_a_number_from_its_next_owner() -> None:
    splitter, first, second = FrameSplitter(MAX_BODY), Recorder(), Recorder()
    splitter.claim(1, first)
    splitter.claim(1, second)

    splitter.release(1, first)

    assert splitter.feed(marshal(commands.Basic.Ack(1), 1)) == b""
    assert second.seen == [("ack", 1, False)]


def test_a_number_used_again_begins_without_the_old_content() -> None:
    # given a channel that was closed in the middle of a delivery
    splitter, old, new = FrameSplitter(MAX_BODY), Recorder(), Recorder()
    splitter.claim(1, old)
    halves = content(1, commands.Basic.Deliver("t", 1, False, "", "q"), commands.Basic.Properties(), b"half")
    closing = marshal(commands.Channel.Close(406, "PRECONDITION_FAILED", 0, 0), 1)
    assert splitter.feed(b"".join([*halves[:2], closing])) == closing
    # when its number is claimed for another channel
    splitter.claim(1, new)
    splitter.feed(b"".join(halves))
    # then nothing of the old one is mixed in
    assert old.seen == []
    assert len(new.seen) == 1
