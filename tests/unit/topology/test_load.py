"""Files that are right: the form of the README, defaults, merging, warnings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TopologyError
from pipeline.topology.expand import expand
from pipeline.topology.load import load_text, load_topology
from pipeline.topology.model import EventType, RetryPolicy

PROJECT = Path(__file__).parents[3]


def test_the_form_of_the_issue() -> None:
    # given a file with every section
    text = dedent("""\
        version: 1
        exchanges:
          events: {type: topic}
        events:                                  # what may be published, and where it goes
          order.created: {exchange: events, model: "workers.models:OrderCreated"}
        subscriptions:
          payments:
            events: [order.created]
            handler: "workers.payments"
            retry: {attempts: 5, delays: [1s, 5s, 30s, 2m]}
            dead_letter: true
            prefetch: 1000
            timeout: 30s
        queues: {}
        bindings: []
        policies: {}
        """)

    # when it is loaded
    loaded = load_text(text)

    # then everything is there, and nothing is doubtful
    payments = loaded.topology.subscriptions["payments"]
    assert payments.events == ("order.created",)
    assert payments.retry == RetryPolicy(5, (1.0, 5.0, 30.0, 120.0))
    assert (payments.prefetch, payments.timeout, payments.dead_letter) == (1000, 30.0, True)
    assert payments.handler == "workers.payments"
    assert loaded.topology.events["order.created"] == EventType(
        "order.created", "events", "order.created", model="workers.models:OrderCreated"
    )
    assert loaded.warnings == ()


def test_what_is_left_out_has_a_default() -> None:
    loaded = load_text("version: 1\nexchanges: {x:}\nevents: {e:}\nsubscriptions: {s: {events: [e]}}\nqueues:\n")

    subscription = loaded.topology.subscriptions["s"]
    assert loaded.topology.exchanges["x"].type == "topic"
    assert loaded.topology.events["e"].exchange == "x"
    assert subscription.retry == RetryPolicy(5, (1.0, 5.0, 30.0, 120.0))
    assert (subscription.prefetch, subscription.timeout, subscription.concurrency) == (1000, 30.0, 100)
    assert (subscription.dead_letter, subscription.delivery_limit, subscription.handler) == (True, 20, "")


def test_the_reference_application_is_valid() -> None:
    loaded = load_topology(PROJECT / "topology")

    assert set(loaded.topology.subscriptions) == {"payments", "inventory", "orders"}
    assert loaded.warnings == ()


def test_a_pattern_in_events_stands_for_all_it_matches() -> None:
    text = "version: 1\nexchanges: {x: {}}\nevents: {pay.taken: {}, pay.lost: {}, other: {}}\n"

    loaded = load_text(text + 'subscriptions: {s: {events: ["pay.*"]}, all: {events: ["#"]}}\n')

    assert loaded.topology.subscriptions["s"].events == ("pay.taken", "pay.lost")
    assert loaded.topology.subscriptions["all"].events == ("pay.taken", "pay.lost", "other")


def test_the_delivery_limit_stays_above_many_attempts() -> None:
    text = "version: 1\nexchanges: {x: {}}\nevents: {e: {}}\nsubscriptions: {s: {events: [e], retry: {attempts: 50}}}"

    assert load_text(text).topology.subscriptions["s"].delivery_limit == 60


WARNED = {
    "an event nobody takes": (
        "version: 1\nexchanges: {x: {}}\nevents: {e: {}}\n",
        "t:3:10: warning: events.e: no subscription takes it (publishing it fails)",
    ),
    "an event only a log takes": (
        (
            "version: 1\nexchanges: {x: {}}\nevents: {e: {}}\nqueues: {q: {}}\n"
            "bindings: [{exchange: x, queue: q, routing_key: '#'}]\n"
        ),
        "t:3:10: warning: events.e: no subscription takes it (only plain queues get it)",
    ),
    "a subscription nothing reaches": (
        (
            "version: 1\nexchanges: {x: {}}\nevents: {e: {}}\n"
            "subscriptions: {s: {routing_keys: ['f.#']}, t: {events: [e]}}\n"
        ),
        "t:4:17: warning: subscriptions.s: no declared event reaches it (add events or routing_keys)",
    ),
    "no dead letters": (
        "version: 1\nexchanges: {x: {}}\nevents: {e: {}}\nsubscriptions: {s: {events: [e], dead_letter: false}}\n",
        "t:4:34: warning: subscriptions.s.dead_letter: failed events are dropped after the last attempt",
    ),
    "a transient queue": (
        "version: 1\nqueues: {q: {type: classic, durable: false}}\n",
        "t:2:29: warning: queues.q.durable: RabbitMQ 4.3 and later refuse queues that do not survive a restart",
    ),
    "a misspelt policy": (
        "version: 1\npolicies: {p: {pattern: a, definition: {max-lenght: 5, federation-upstream-set: all}}}\n",
        "t:2:41: warning: policies.p.definition.max-lenght: no such setting is known (did you mean max-length?)",
    ),
    "a misspelt argument": (
        "version: 1\nqueues: {q: {arguments: {x-mesage-ttl: 5}}}\n",
        (
            "t:2:26: warning: queues.q.arguments.x-mesage-ttl: is no argument RabbitMQ knows; it would be ignored "
            "(did you mean x-message-ttl?)"
        ),
    ),
}


@pytest.mark.parametrize(("text", "said"), WARNED.values(), ids=WARNED)
def test_what_is_hardly_meant_is_a_warning(text: str, said: str) -> None:
    assert [str(warning) for warning in load_text(text, "t").warnings] == [said]


def test_an_event_reaches_a_subscription_through_another_exchange() -> None:
    # given a subscription bound to an exchange that is itself bound to the event's exchange
    text = dedent("""\
        version: 1
        exchanges: {first: {type: direct}, second: {type: topic}}
        events: {order.created: {exchange: first}}
        subscriptions: {s: {routing_keys: ["order.*"], exchange: second}}
        bindings: [{exchange: first, to_exchange: second, routing_key: order.created}]
        """)

    # then neither is called unreached
    assert load_text(text).warnings == ()


# --- several files


def test_all_files_of_a_folder_are_merged(tmp_path: Path) -> None:
    # given a folder with files of both endings, and things that are none of ours
    (tmp_path / "b.yaml").write_text("version: 1\nsubscriptions: {s: {events: [e]}}\n")
    (tmp_path / "a.yml").write_text("version: 1\nexchanges: {x: {}}\nevents: {e: {}}\n")
    (tmp_path / ".#a.yaml").write_text("an editor's lock")
    (tmp_path / "notes.txt").write_text("nothing")

    loaded = load_topology(tmp_path)

    assert loaded.topology.subscriptions["s"].events == ("e",)
    assert loaded.topology.files == (str(tmp_path / "a.yml"), str(tmp_path / "b.yaml"))


def test_one_name_in_two_files_names_both_places(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("version: 1\nqueues:\n  log: {}\n")
    second.write_text("version: 1\nqueues: {log: {}}\n")

    with pytest.raises(TopologyError) as caught:
        load_topology(tmp_path)

    assert str(caught.value) == f"{second}:2:10: queues.log: is declared twice (first at {first}:3:3)"


def test_bindings_of_all_files_are_joined_and_counted_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "version: 1\nexchanges: {x: {}}\nqueues: {q: {}}\nbindings: [{exchange: x, queue: q}]\n"
    )
    (tmp_path / "b.yaml").write_text("version: 1\nbindings:\n  - {exchange: x, queue: p}\n")

    with pytest.raises(TopologyError) as caught:
        load_topology(tmp_path)

    problem = caught.value.problems[0]
    assert (problem.file, problem.line, problem.path) == (str(tmp_path / "b.yaml"), 3, "bindings[0].queue")


def test_an_unreadable_file_does_not_make_others_look_wrong(tmp_path: Path) -> None:
    # given a file that can't be read as YAML and may hold what the other names
    (tmp_path / "a.yaml").write_text("version: 1\nexchanges: {x: {}\n")
    (tmp_path / "b.yaml").write_text("version: 1\nevents: {e: {exchange: x, nope: 1}}\n")

    with pytest.raises(TopologyError) as caught:
        load_topology(tmp_path)

    # then the exchange is not called missing, but what is wrong in itself is told
    assert [problem.path for problem in caught.value.problems] == ["", "events.e.nope"]


@given(
    st.permutations(["exchanges: {x: {}}", "events: {e: {}}", "subscriptions: {s: {events: [e]}}", "queues: {q: {}}"])
)
def test_how_the_sections_are_split_over_files_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, sections: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("split")
    whole = load_text("version: 1\n" + "\n".join(sections))
    for index, section in enumerate(sections):
        (folder / f"{index}.yaml").write_text(f"version: 1\n{section}\n")

    assert expand(load_topology(folder).topology) == expand(whole.topology)


# --- files as the file system has them


def test_a_place_without_files(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"holds no \*\.yaml file"):
        load_topology(tmp_path)
    with pytest.raises(TopologyError, match=r"no such file or folder \(name another place with --topology"):
        load_topology(tmp_path / "nowhere")


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfversion: 1\n")

    assert load_topology(file).topology.files == (str(file),)


def test_what_is_not_utf_8_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("version: 1\nevents: {größe: {}}\n".encode("latin-1"))

    with pytest.raises(TopologyError) as caught:
        load_topology(file)

    assert str(caught.value) == f"{file}:2:12: byte 0xF6 is not UTF-8 (save it as UTF-8)"


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"# " + b"x" * 2**20)

    with pytest.raises(TopologyError, match="is larger than 1 MiB"):
        load_topology(file)


def test_a_file_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")

    with pytest.raises(TopologyError, match=r"a\.yaml: can't be read: No such file or directory"):
        load_topology(tmp_path)


def test_a_schema_file_stands_relative_to_its_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a schema beside the file, and a process that works somewhere else
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "e.json").write_text(json.dumps({"type": "object"}))
    (tmp_path / "a.yaml").write_text("version: 1\nexchanges: {x: {}}\nevents: {e: {schema: schemas/e.json}}\n")
    monkeypatch.chdir(os.sep)

    loaded = load_topology(tmp_path)

    assert loaded.topology.events["e"].schema == str(tmp_path / "schemas" / "e.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ('{"type": "objekt"}', "is no JSON Schema"), ("[]", "must be an object")],
)
def test_a_schema_file_must_hold_a_schema(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "e.json").write_text(content)
    (tmp_path / "a.yaml").write_text("version: 1\nexchanges: {x: {}}\nevents: {e: {schema: e.json}}\n")

    with pytest.raises(TopologyError, match=said):
        load_topology(tmp_path)
