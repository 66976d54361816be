"""Trees, Mermaid and SVG."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from textwrap import dedent
from typing import Any

import pytest

from pipeline.topology.as_json import topology_json
from pipeline.topology.draw_mermaid import mermaid
from pipeline.topology.draw_svg import svg
from pipeline.topology.draw_tree import tree, tree_text
from pipeline.topology.load import load_text
from pipeline.topology.model import Topology

SVG = "{http://www.w3.org/2000/svg}"

SHOP = """\
version: 1
exchanges: {events: {}, audit: {type: fanout}}
events: {order.created: {exchange: events}, unwanted: {exchange: audit}}
subscriptions:
  payments: {events: [order.created], handler: workers.payments, retry: {attempts: 5, delays: [1s, 90s]}}
  mail: {routing_keys: ["order.#"], exchange: events, dead_letter: false, retry: {attempts: 1}}
queues: {log: {type: stream}}
bindings:
  - {exchange: events, to_exchange: audit, routing_key: order.created}
  - {exchange: events, queue: log, routing_key: "#"}
policies: {short: {pattern: ^log$, definition: {max-age: 1D}}}
"""


@pytest.fixture(scope="module")
def shop() -> Topology:
    return load_text(SHOP).topology


def test_the_tree(shop: Topology) -> None:
    assert tree_text(tree(shop)) + "\n" == dedent("""\
        topology  2 events, 2 subscriptions
        ├─ events
        │  ├─ events  topic exchange
        │  │  ├─ order.created  → payments, mail, log
        │  │  └─ → audit  order.created
        │  └─ audit  fanout exchange
        │     └─ unwanted  nobody takes it
        ├─ subscriptions
        │  ├─ payments  workers.payments; prefetch 1000, timeout 30s
        │  │  ├─ order.created  from events
        │  │  ├─ payments.retry.*  5 attempts, after 1s, 90s, the last repeats
        │  │  └─ payments.dlq  what failed for good, or was delivered 20 times to workers that died
        │  └─ mail  consumed by other programs; prefetch 1000, timeout 30s
        │     ├─ order.#  from events
        │     ├─ no retries  1 attempt
        │     └─ no dead letters  what failed for good is dropped
        ├─ plain queues
        │  └─ log  stream
        │     └─ #  from events
        └─ plain policies
           └─ short  ^log$ on queues: max-age 1D
        """)


def test_mermaid_holds_every_object_and_arrow(shop: Topology) -> None:
    text = mermaid(shop)

    assert text.startswith("flowchart LR\n")
    for line in (
        'e0("order.created"):::event --> x0',
        'x0 -->|"order.created"| x1',
        'x0 -->|"order.created"| q0',
        'q0 --> h0["workers.payments"]:::handler',
        'h0 -. failed .-> r0["wait 1s, 90s<br>5 attempts"]:::retry',
        "r0 -.-> q0",
        'h0 -. failed for good .-> d0[("payments.dlq")]:::dead',
        'x0 -->|"order.#35;"| q1',
        'q2[("log<br>stream")]:::queue',
    ):
        assert f"  {line}\n" in text
    assert "r1" not in text, "one attempt has no way back"
    assert "d1" not in text, "no dead letters, no dead-letter queue"


def parsed(picture: str) -> ET.Element:
    """The SVG as XML."""
    return ET.fromstring(picture)  # noqa: S314  (we drew it ourselves)


def texts(picture: str) -> list[str]:
    """Every text that is drawn."""
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def test_svg_names_everything(shop: Topology) -> None:
    drawn = texts(svg(shop))

    for name in ("order.created", "events", "payments", "workers.payments", "1s", "90s", "payments.dlq", "mail", "log"):
        assert name in drawn
    assert "after 5 attempts" in drawn
    assert "mail.dlq" not in drawn


def test_names_can_not_break_out_of_a_picture() -> None:
    # given names full of what markup is made of
    evil = '"><script>alert(1)</script>&#x3c;]]>--\N{RIGHT-TO-LEFT OVERRIDE}`%%{init}'
    document: dict[str, Any] = {
        "version": 1,
        "exchanges": {evil: {}},
        "events": {"a&<b>": {}},
        "queues": {evil: {}},
        "bindings": [{"exchange": evil, "queue": evil, "routing_key": evil}],
    }
    topology = load_text(json.dumps(document)).topology

    # then the SVG stays well-formed, runs nothing and still shows them
    root = parsed(svg(topology))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg",
        "style",
        "rect",
        "path",
        "text",
        "title",
    }
    assert "a&<b>" in texts(svg(topology))
    # and in Mermaid nothing but entities is left of them
    labels = re.findall(r'"([^"]*)"', mermaid(topology))
    assert len(labels) * 2 == mermaid(topology).count('"')
    assert not [label for label in labels if set(label.replace("<br>", "")) & set("<>`%{}\N{RIGHT-TO-LEFT OVERRIDE}")]


def boxes(picture: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of every named box."""
    found = []
    for element in parsed(picture).iter(f"{SVG}rect"):
        x, y, width, height = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
        if element.attrib["class"].split()[0] in ("event", "exchange", "queue", "handler", "retry", "dead"):
            found.append((x, y, x + width, y + height))
    return found


@pytest.mark.parametrize(
    ("events", "subscriptions", "exchanges"), [(1, 1, 1), (3, 3, 1), (30, 2, 3), (2, 12, 5), (20, 12, 12)]
)
def test_no_box_lies_on_another_or_outside(events: int, subscriptions: int, exchanges: int) -> None:
    # given a topology of some size, every subscription with events of its own choice
    document: dict[str, Any] = {
        "version": 1,
        "exchanges": {f"exchange-{number}": {} for number in range(exchanges)},
        "events": {
            f"event.number.{number}": {"exchange": f"exchange-{number % exchanges}"} for number in range(events)
        },
        "subscriptions": {
            f"subscription-{number}": {
                "events": [f"event.number.{event}" for event in range(number % events, events)],
                "retry": {"attempts": number + 2, "initial": "1s", "max": "1h"},
            }
            for number in range(subscriptions)
        },
    }

    picture = svg(load_text(json.dumps(document)).topology)

    drawn = boxes(picture)
    width, height = (float(parsed(picture).attrib[name]) for name in ("width", "height"))
    for index, (left, top, right, bottom) in enumerate(drawn):
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
        for other in drawn[index + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, f"{drawn[index]} lies on {other}"


def test_an_empty_topology_can_be_drawn() -> None:
    topology = load_text("version: 1\n").topology

    assert tree_text(tree(topology)) == "topology  0 events, 0 subscriptions"
    assert mermaid(topology).startswith("flowchart LR\n")
    parsed(svg(topology))


def test_json_holds_files_and_broker_objects(shop: Topology) -> None:
    data = json.loads(json.dumps(topology_json(shop)))

    assert [subscription["name"] for subscription in data["subscriptions"]] == ["payments", "mail"]
    assert data["subscriptions"][0]["retry"] == {"attempts": 5, "delays": [1.0, 90.0]}
    assert {queue["name"] for queue in data["broker"]["queues"]} == {
        "payments",
        "payments.retry.1s",
        "payments.retry.90s",
        "payments.dlq",
        "mail",
        "log",
    }
