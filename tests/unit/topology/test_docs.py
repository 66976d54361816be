"""docs/topology.md says of every key what the reader goes by."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.topology import keys
from pipeline.topology.draw_svg import svg
from pipeline.topology.kinds import (
    Choice,
    Constant,
    Flag,
    Free,
    Key,
    Kind,
    ListOf,
    MapOf,
    Real,
    Record,
    ScalarKind,
    Size,
    Span,
    Text,
    Whole,
)
from pipeline.topology.load import load_text, load_topology

PROJECT = Path(__file__).parents[3]
DOC = (PROJECT / "docs" / "topology.md").read_text(encoding="utf-8")
RECORDS = {
    "## The file": keys.FILE,
    "## Exchanges": keys.EXCHANGE,
    "## Events": keys.EVENT,
    "## Subscriptions": keys.SUBSCRIPTION,
    "### Retries": keys.RETRY,
    "## Event log": keys.EVENT_LOG,
    "## Delay": keys.DELAY,
    "## Schedules": keys.SCHEDULE,
    "## Plain queues": keys.QUEUE,
    "## Plain bindings": keys.BINDING,
    "## Plain policies": keys.POLICY,
}


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    assert f"\n{title}\n" in DOC, title
    return DOC.split(f"\n{title}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]


def row(key: Key) -> str:
    """A key's line in its table."""
    default = "required" if key.required else "" if key.default is None else f"`{shown(key.default)}`"
    return f"| `{key.name}` | {value(key.kind)} | {default} | {key.doc} |"


def shown(default: object) -> str:
    """A default as YAML."""
    words = {"True": "true", "False": "false", "": '""'}
    return words.get(str(default), str(default))


def value(kind: Kind) -> str:
    """What a key takes, in a few words."""
    match kind:
        case ListOf(kind=inner):
            return f"list of {value(inner)}"
        case MapOf(kind=inner):
            return "mapping by name"
        case Free() | Record():
            return "mapping"
        case _:
            return scalar(kind)


def scalar(kind: ScalarKind) -> str:
    """The same of a single value."""
    match kind:
        case Text(example=example):
            return f"text, `{example}`" if example else "text"
        case Flag():
            return "`true`, `false`"
        case Whole():
            return "whole number"
        case Real():
            return "number"
        case Span():
            return "duration"
        case Size():
            return "size"
        case Choice(values=values):
            return ", ".join(f"`{choice}`" for choice in values)
        case Constant(value=constant):
            return f"`{constant}`"


@pytest.mark.parametrize(("title", "record"), RECORDS.items(), ids=RECORDS)
def test_the_table_of_each_section_is_right(title: str, record: Record) -> None:
    rows = [row(key) for key in record.keys]
    table = section(title).split("|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()

    assert table == rows, "expected:\n" + "\n".join(rows)


def test_the_examples_can_be_loaded() -> None:
    examples = [block.split("```")[0] for block in DOC.split("```yaml\n")[1:]]
    whole = [
        example for example in examples if example.lstrip("# ").startswith("version: 1") or "\nversion: 1" in example
    ]

    assert whole
    for example in whole:
        load_text(example, "docs/topology.md")


def test_the_picture_is_the_one_drawn() -> None:
    kept = (PROJECT / "docs" / "orders.svg").read_text(encoding="utf-8")

    drawn = svg(load_topology(PROJECT / "topology").topology)
    assert kept == drawn, "run `pipeline topology show --format svg --output docs/orders.svg`"
