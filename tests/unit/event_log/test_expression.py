"""Expressions over events: what they say of an event, and that they can say nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadExpression
from pipeline.event_log.entry import Entry
from pipeline.event_log.expression import DEEPEST, LONGEST, compiled
from pipeline.message import Delivery
from pipeline.properties import Properties

DATA = {"amount": 120.5, "n": 3, "tags": ["new", "vip"], "address": {"city": "Ulm", "lines": [{"no": 7}]}, "on": True}


def entry(data: Any = DATA, **more: Any) -> Entry:
    headers = {"cloudEvents_time": "2026-11-21T06:00:00+00:00", "cloudEvents_source": "shop", **more}
    delivery = Delivery(1, 1, False, "events", "order.created", b"", b"")
    delivery.use(
        Properties(message_id="e1", type="order.created", content_type="application/json", headers=headers),
        json.dumps(data).encode(),
    )
    return Entry(delivery, 1_000_000)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("data.amount > 100", True),
        ("data.amount > 100 and data.n == 4", False),
        ("data.amount > 200 or data.n == 3", True),
        ("not data.n == 3", False),
        ("not (data.n == 3 and data.amount < 1)", True),
        ("data.n == 4 and data.n == 3 or data.on == true", True),  # and binds closer than or
        ("data.on", True),
        ("data.n", False),  # only true is true
        ("data.on == 1", False),
        ("data.n == 3.0", True),
        ("data.missing == null", True),
        ("data.missing.deeper.still == null", True),
        ("data.amount.deeper == null", True),
        ("data.missing > 1", False),
        ("data.n > '2'", False),
        ("data.address.city in ['Ulm', \"Bonn\"]", True),
        ("data.address.city not in ['Bonn']", True),
        ("'vip' in data.tags", True),
        ("'vi' in data.tags", False),
        ("'Ul' in data.address.city", True),
        ("data.address.lines.0.no == 7", True),
        ("data.address.lines.1.no == null", True),
        ("data.tags == ['new', 'vip']", True),
        ("type == 'order.created' and id == \"e1\" and source != 'x'", True),
        ("subject == null", True),
        ("time >= '2026-11-21T06:00Z'", True),
        ("time > '2026-11-21T07:00+01:00'", False),
        ("time < '2026-11-22'", True),
        ("'2026-11-21' <= time", True),
        ("data.n >= -1e3", True),
        ("data.address.city == 'U\\lm'", True),
        ("[] == data.missing", False),
    ],
)
def test_an_expression_holds_or_does_not(expression: str, holds: bool) -> None:
    assert compiled(expression)(entry()) is holds


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "a value is expected"),
        ("data.a >", "a value is expected"),
        ("data.a > 1 data.b", "and, or, or the end is expected"),
        ("1 < data.n < 3", "can't be chained"),
        ("open('x')", "open is nothing of an event"),
        ("data.a = 1", "'=' means nothing"),
        ("data.a == 'x", "a text that does not end"),
        ("(data.a == 1", ") is expected"),
        ("[1, 2", ", or ] is expected"),
        ("type.upper == 1", "type has nothing in it"),
        ("data.__class__()", "and, or, or the end is expected"),
        ("time > 'soon'", "time is compared with a time"),
        ("data.a not 1", "in is expected behind not"),
        ("lambda: 1", "':' means nothing"),
        ("data.a ; 1", "';' means nothing"),
        ("(" * (DEEPEST + 1) + "1", "levels deep"),
        ("not " * 1000 + "true", "levels deep"),
        ("[" * 500, "levels deep"),
    ],
)
def test_what_is_no_expression_is_answered_with_its_place(expression: str, message: str) -> None:
    with pytest.raises(BadExpression) as caught:
        compiled(expression)

    assert message in str(caught.value)
    assert str(caught.value).endswith("^")


def test_the_mark_stands_under_the_place() -> None:
    with pytest.raises(BadExpression) as caught:
        compiled("data.a > and")

    _, shown, mark = str(caught.value).split("\n")
    assert shown[mark.index("^")] == "a"
    assert mark.index("^") - 2 == len("data.a > ")


def test_a_very_long_expression_is_refused() -> None:
    with pytest.raises(BadExpression, match="at most"):
        compiled("true or " * LONGEST)


@given(st.text(alphabet="data.timenotr and()[],'\"<>=!0123456789\\é\0\n_-x", max_size=60))
def test_any_text_is_an_expression_or_a_bad_one(text: str) -> None:
    try:
        test = compiled(text)
    except BadExpression:
        return
    assert test(entry()) in (True, False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
numbers = st.integers(-(10**9), 10**9)


@given(values, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]), numbers)
def test_no_data_breaks_a_comparison(data: Any, sign: str, number: int) -> None:
    assert compiled(f"data.x {sign} {number} or {number} {sign} data.x or data.x.y {sign} 'a'")(entry({"x": data})) in (
        True,
        False,
    )


@given(numbers, numbers)
def test_numbers_compare_as_numbers_do(left: int, right: int) -> None:
    event = entry({"x": left})
    for sign, expected in {"<": left < right, "<=": left <= right, ">": left > right, "==": left == right}.items():
        assert compiled(f"data.x {sign} {right}")(event) is expected


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=30))
def test_any_text_can_be_written_down(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert compiled(f"data.x == {quoted}")(entry({"x": text}))


def test_an_event_that_tells_no_time_is_old() -> None:
    found = entry(cloudEvents_time="yesterday")

    assert found.time == datetime(1970, 1, 1, tzinfo=UTC)
    assert compiled("time < '2000-01-01'")(found)
