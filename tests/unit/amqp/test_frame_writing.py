"""Frames written here, read by pamqp."""

from __future__ import annotations

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from pipeline.amqp.frames import ack_frame, content_frames, nack_frames, publish_method
from pipeline.properties import Properties, encode_properties
from tests.unit.amqp.streams import marshal, names, tags


def read_back(raw: bytes) -> list[tuple[int, pamqp.frame.FrameTypes]]:
    found = []
    while raw:
        size, channel, unmarshalled = pamqp.frame.unmarshal(raw)
        found.append((channel, unmarshalled))
        raw = raw[size:]
    return found


@given(st.integers(1, 65535), names, names, st.binary(max_size=40), st.sampled_from([0, 4096, 131072]), st.data())
def test_pamqp_reads_what_is_published(
    channel: int, exchange: str, key: str, unit: bytes, frame_max: int, data: st.DataObject
) -> None:
    body = unit * data.draw(st.sampled_from([0, 1, 300]))
    properties = encode_properties(Properties(message_id="id-1", headers={"h": "v"}))

    pieces = content_frames(channel, properties, body, frame_max)
    raw = publish_method(channel, exchange, key) + b"".join(pieces)

    (_, method), (_, header), *rest = read_back(raw)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == (exchange, key, True, False)
    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties.message_id, header.properties.delivery_mode) == (len(body), "id-1", 2)
    parts = [each.value for _, each in rest if isinstance(each, ContentBody)]
    assert len(parts) == len(rest)
    assert b"".join(parts) == body
    assert all(found == channel for found, _ in read_back(raw))
    assert not frame_max or all(len(part) + 8 <= frame_max for part in parts)


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177])
def test_bodies_are_cut_at_the_frame_limit_and_not_before(size: int) -> None:
    raw = b"".join(content_frames(1, encode_properties(Properties()), bytes(size), 4096))

    assert len(read_back(raw)) - 1 == -(-size // (4096 - 8))


@given(st.integers(1, 65535), tags, st.booleans())
def test_acks_are_those_of_pamqp(channel: int, tag: int, multiple: bool) -> None:
    assert ack_frame(channel, tag, multiple) == marshal(commands.Basic.Ack(tag, multiple), channel)


@given(st.integers(1, 65535), st.lists(tags, max_size=4))
def test_nacks_are_those_of_pamqp(channel: int, given_tags: list[int]) -> None:
    expected = b"".join(marshal(commands.Basic.Nack(tag, False, True), channel) for tag in given_tags)

    assert nack_frames(channel, given_tags) == expected


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128, "\ud800"], ids=["ascii", "two bytes each", "half a pair"])
def test_names_that_amqp_can_not_carry_are_a_value_error(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the publisher says whose it was
        publish_method(1, "", name)
    with pytest.raises(ValueError):  # noqa: PT011
        publish_method(1, name, "")
