"""Wrong files: each is told where, at which key, what is wrong and what would be right.

The cases are the text files beside this module: `===` and a name, the file, and behind `---` the one error it gets.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.errors import TopologyError
from pipeline.topology.load import load_text

HEAD = """\
version: 1
exchanges: {events: {type: topic}}
events: {order.created: {}}
"""


def cases() -> dict[str, tuple[str, str]]:
    """Name → (text of the file, its error); the line HEAD stands for a sound beginning."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted((Path(__file__).parent / "bad_files").glob("*.txt")):
        for block in file.read_text(encoding="utf-8").split("=== ")[1:]:
            name, _, rest = block.partition("\n")
            text, _, said = rest.rpartition("--- ")
            assert name not in found, f"{name} is there twice"
            found[name] = (text.replace("HEAD\n", HEAD), said.strip())
    return found


CASES = cases()
assert CASES, "the text files are gone"


def errors_of(text: str) -> list[str]:
    """What is said of a file named `t`, without warnings."""
    with pytest.raises(TopologyError) as caught:
        load_text(text, "t")
    return [str(problem) for problem in caught.value.problems if not problem.warning]


@pytest.mark.parametrize(("text", "said"), CASES.values(), ids=CASES)
def test_a_wrong_file_is_told_where_and_what(text: str, said: str) -> None:
    assert errors_of(text) == [said]


def test_a_control_character_is_told_by_its_number() -> None:
    assert errors_of("version: 1\nevents: {a\x07: {}}\n") == ["t:2:11: character U+0007 is not allowed"]


def test_a_name_over_255_bytes_is_refused() -> None:
    name = "ü" * 128

    assert errors_of(f"version: 1\nqueues: {{{name}: {{}}}}\n") == [
        f"t:2:10: queues.{name}: is 256 bytes long; 255 is the most"
    ]


def test_a_derived_name_over_255_bytes_is_refused() -> None:
    name = "a" * 240
    text = f"{HEAD}subscriptions: {{{name}: {{events: [order.created], retry: {{delays: [1234567891ms]}}}}}}\n"

    assert errors_of(text) == [
        (
            f"t:4:17: subscriptions.{name}: its queue {name[:40]}… has a name of 259 bytes; 255 is the most"
            " (shorten the subscription's name)"
        )
    ]


def test_all_errors_are_told_at_once_in_file_order() -> None:
    text = dedent("""\
        version: 1
        exchanges:
          events: {type: topik}
        events:
          order.created: {exchang: events}
        subscriptions:
          payments:
            events: [order.create]
            timeout: 30
        """)

    with pytest.raises(TopologyError) as caught:
        load_text(text, "t")

    assert [(problem.line, problem.column, problem.path) for problem in caught.value.problems] == [
        (3, 18, "exchanges.events.type"),
        (5, 19, "events.order.created.exchang"),
        (8, 14, "subscriptions.payments.events[0]"),
        (9, 14, "subscriptions.payments.timeout"),
    ]
    assert caught.value.exit_code == 2


def test_a_wrong_entry_does_not_make_what_names_it_look_wrong() -> None:
    # given an exchange whose type is wrong, and an event that goes there
    text = "version: 1\nexchanges: {a: {type: nope}, b: {}}\nevents: {e: {exchange: a}}\n"

    # then only the type is wrong
    assert [error.split(": ")[1] for error in errors_of(text)] == ["exchanges.a.type"]
