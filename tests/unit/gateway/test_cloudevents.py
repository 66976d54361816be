"""The CloudEvents HTTP binding: whatever arrives, events or a refusal; and each mode says the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec import any_json
from pipeline.errors import EventError, InvalidPayload
from pipeline.event import Event
from pipeline.gateway.attributes import FORBIDDEN, Defaults, json_type
from pipeline.gateway.cloudevents import BATCH, STRUCTURED, Reading, Sent, read
from pipeline.gateway.problems import Refused

TYPE = "order.created"
NOW = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
KINDS = [
    "application/json", "application/json; charset=utf-8", STRUCTURED, BATCH, "application/x-ndjson", "text/plain", "",
    "application/vnd.shop+json", 'application/json; charset="utf-16"',
]  # fmt: skip


def reading(kind: str = TYPE, most: int = 20) -> Reading:
    return Reading(kind, lambda index: Defaults(kind, f"fresh-{index}", "gateway", NOW), any_json().write, most)


def texts(most: int = 40) -> st.SearchStrategy[str]:
    """What an attribute may hold."""
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=most).filter(
        lambda text: not FORBIDDEN.search(text)
    )


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "specversion",
        "id",
        "type",
        "source",
        "time",
        "subject",
        "dataschema",
        "datacontenttype",
        "data",
        "data_base64",
        "x",
    ]
) | st.text(max_size=5)
ANY_EVENT = st.dictionaries(NAMES, VALUES | st.just("1.0") | st.just(TYPE), max_size=10)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """A CloudEvent that is in order."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": draw(texts().filter(str.isprintable)),
        "type": TYPE,
        "source": draw(st.from_regex(r"/[a-z0-9/:.-]{1,20}", fullmatch=True)),
    }
    if draw(st.booleans()):
        event["subject"] = draw(texts())
    if draw(st.booleans()):
        moment = draw(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
        event["time"] = moment.isoformat()
    names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in KNOWN)
    return event | draw(st.dictionaries(names, texts(), max_size=3))


KNOWN = {"specversion", "id", "type", "source", "time", "subject", "dataschema", "datacontenttype", "data"}


def as_headers(event: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(f"ce-{name}".encode(), quote(text, safe=" !#$&'()*+,/:;=?@[]").encode()) for name, text in event.items()]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS) | st.text(max_size=30),
    st.lists(
        st.tuples(
            st.sampled_from([b"ce-id", b"ce-type", b"ce-", b"ce-time", b"ce-x\xff", b"x"]), st.binary(max_size=12)
        )
    ),
    st.binary(max_size=60),
    st.sampled_from([TYPE, ""]),
)
def test_whatever_bytes_arrive_are_events_or_a_refusal(
    kind: str, headers: list[tuple[bytes, bytes]], body: bytes, address: str
) -> None:
    try:
        found = read(Sent(kind, headers, body), reading(address))
    except (Refused, EventError):
        return
    assert found.events
    assert all(isinstance(event, Event) for event in found.events)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from([STRUCTURED, BATCH, "application/json"]),
    ANY_EVENT | VALUES | st.lists(ANY_EVENT),
    st.sampled_from([TYPE, ""]),
)
def test_whatever_json_arrives_is_events_or_a_refusal(kind: str, whole: Any, address: str) -> None:
    try:
        found = read(Sent(kind, [], json.dumps(whole).encode()), reading(address))
    except (Refused, EventError):
        return
    for event in found.events:
        assert event.id
        assert event.id.isprintable()
        assert len(event.id.encode()) <= 255
        assert event.time.tzinfo is not None
        assert event.type or not address


@settings(max_examples=80, deadline=None)
@given(events(), VALUES)
def test_each_mode_says_the_same(event: dict[str, Any], data: Any) -> None:
    body = json.dumps(data).encode()
    whole = json.dumps(event | {"data": data}).encode()
    (binary,) = read(Sent("application/json", as_headers(event), body), reading()).events
    (structured,) = read(Sent(STRUCTURED, [], whole), reading()).events
    (batched,) = read(Sent(BATCH, [], b"[" + whole + b"]"), reading("")).events
    # the data is the same, whatever its spelling
    assert json.loads(binary.data) == json.loads(structured.data) == data
    for other in (structured, batched):
        for name in ("id", "type", "source", "time", "subject", "dataschema", "datacontenttype", "extensions"):
            assert getattr(other, name) == getattr(binary, name), name
    assert binary.id == event["id"]
    assert binary.subject == event.get("subject")
    assert binary.time == (datetime.fromisoformat(event["time"]) if "time" in event else NOW)
    assert binary.extensions == {name: text for name, text in event.items() if name not in KNOWN}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("specversion", "0.3", "must be 1.0"),
        ("id", "", "must not be empty"),
        ("id", "é" * 128, "at most 255 bytes"),
        ("id", "a\u2028b", "printable"),
        ("source", "no uri", "must be a URI"),
        ("source", 7, "must be a text"),
        ("time", "yesterday", "RFC 3339"),
        ("time", "2026-02-30T00:00:00Z", "RFC 3339"),
        ("time", "٢٠٢٦-01-01T00:00:00Z", "RFC 3339"),
        ("time", "0001-01-01T00:00:00+23:59", "RFC 3339"),
        ("type", "other", "as the address says"),
        ("Upper", "x", "lower-case"),
        ("n", 2**31, "32 bits"),
        ("n", 1.5, "32 bits"),
        ("n", "a\nb", "control characters"),
        ("subject", "x" * 1025, "1024"),
        ("datacontenttype", "text/xml", "must be JSON"),
    ],
)
def test_an_attribute_at_fault_is_named(name: str, value: Any, words: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": TYPE, "data": 1} | {name: value}
    with pytest.raises(InvalidPayload) as caught:
        read(Sent(STRUCTURED, [], json.dumps(event).encode()), reading())
    assert [path for path, _ in caught.value.faults] == [name]
    assert words in caught.value.faults[0][1]


@pytest.mark.parametrize(("given_", "is_"), [(True, "true"), (False, "false"), (-7, "-7"), ("x", "x")])
def test_extensions_become_their_canonical_text(given_: Any, is_: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": TYPE, "data": 1, "more": given_}
    (found,) = read(Sent(STRUCTURED, [], json.dumps(event).encode()), reading()).events
    assert found.extensions == {"more": is_}


def test_a_part_of_a_second_is_read_to_the_microsecond() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": TYPE, "data": 1}
    event["time"] = "2026-11-20t13:30:15.123456789+01:00"
    (found,) = read(Sent(STRUCTURED, [], json.dumps(event).encode()), reading()).events
    assert found.time == NOW


def test_very_many_attributes_are_refused_at_once() -> None:
    event: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/a"} | {
        f"k{number}": {} for number in range(10_000)
    }
    with pytest.raises(InvalidPayload) as caught:
        read(Sent(STRUCTURED, [], json.dumps(event).encode()), reading())
    assert len(caught.value.faults) == 1


def test_a_batch_with_many_faults_names_some_of_them() -> None:
    with pytest.raises(Refused) as caught:
        read(Sent(BATCH, [], json.dumps([{}] * 5000).encode()), reading("", most=10_000))
    assert "or more of 5000 events" in caught.value.problem.detail
    assert len(caught.value.problem.faults) < 50


def test_headers_given_twice_or_not_utf8_are_refused() -> None:
    start = [(b"ce-specversion", b"1.0"), (b"ce-source", b"/a")]
    for headers in ([(b"ce-id", b"1"), (b"ce-id", b"1")], [(b"ce-id", b"%ff")], [(b"ce-id", b"\xff")]):
        with pytest.raises(InvalidPayload):
            read(Sent("application/json", start + headers, b"1"), reading())


def test_a_quoted_header_is_what_it_quotes() -> None:
    headers = [(b"ce-specversion", b"1.0"), (b"ce-source", b"/a"), (b"ce-id", rb'"a \"b\" \\ %C3%A9"')]
    (found,) = read(Sent("application/json", headers, b"1"), reading()).events
    assert found.id == 'a "b" \\ é'


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=30).map(lambda text: f"{text}+json") | st.text(max_size=40))
def test_only_a_media_type_is_taken_for_one(text: str) -> None:
    try:
        found = json_type(text)
    except InvalidPayload:
        return
    assert found == "application/json" or (found.isascii() and found.isprintable() and " " not in found)
