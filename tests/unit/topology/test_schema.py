"""The JSON Schema for editors and the reader must not differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.findings import Findings
from pipeline.topology.keys import FILE, SUBSCRIPTION, SUBSCRIPTION_NAME
from pipeline.topology.kinds import (
    Choice,
    Constant,
    Flag,
    Free,
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
from pipeline.topology.schema import json_schema
from pipeline.topology.shape import read_shape
from pipeline.topology.yaml_tree import Items, Node, Scalar, Table, parse
from tests.unit.topology.test_bad_files import CASES

PROJECT = Path(__file__).parents[3]
SCHEMA = json_schema()
SUBSCRIPTIONS = MapOf(SUBSCRIPTION_NAME, SUBSCRIPTION)
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)

WRONG: list[Any] = [None, True, 7, -1, 1.5, "", "x", "5s", "64KB", "a.b", "m:M", [], ["x"], {}, {"a": {}}]


def documents(kind: Kind, wrong: bool) -> st.SearchStrategy[Any]:
    """Values of `kind`; with `wrong`, now and then one that is not, at any depth."""
    sound = st.deferred(lambda: _sound(kind, wrong))
    return st.one_of(sound, sound, sound, st.sampled_from(WRONG)) if wrong else sound


def _sound(kind: Kind, wrong: bool) -> st.SearchStrategy[Any]:
    match kind:
        case Record(keys=keys):
            required = {key.name: documents(key.kind, wrong) for key in keys if key.required}
            optional = {key.name: documents(key.kind, wrong) for key in keys if not key.required}
            return st.fixed_dictionaries(required, optional=optional)
        case MapOf(name=name, kind=inner):
            return st.dictionaries(_sound(name, wrong), documents(inner, wrong), max_size=2)
        case ListOf(kind=inner, minimum=minimum):
            return st.lists(documents(inner, wrong), min_size=minimum, max_size=2)
        case Free(minimum=minimum):
            return st.dictionaries(st.sampled_from(["max-length", "x-a"]), st.integers(0, 9), min_size=minimum)
        case _:
            return _sound_scalar(kind)


def _sound_scalar(kind: ScalarKind) -> st.SearchStrategy[Any]:
    match kind:
        case Text(example=example):
            another = "m.M:M" if "class" in kind.what else "a1"
            return st.sampled_from([example or "name", another if re.fullmatch(kind.pattern, another) else example])
        case Flag():
            return st.booleans()
        case Whole(minimum=low, maximum=high):
            return st.integers(low, high)
        case Size(minimum=low, maximum=high):
            return st.one_of(st.integers(low, high), st.sampled_from(["64KB", "1.5MiB", "2GB"]))
        case Real(minimum=low, maximum=high):
            return st.floats(low, high)
        case Span():
            return st.sampled_from(["1s", "1.5m", "2h", "10000ms"])
        case Choice(values=choices):
            return st.sampled_from(choices)
        case Constant(value=value):
            return st.just(value)


def plain(node: Node) -> Any:
    """The tree as the data a schema sees."""
    match node:
        case Scalar(value=value):
            return value
        case Items(nodes=nodes):
            return [plain(inner) for inner in nodes]
        case Table(entries=entries):
            return {entry.key: plain(entry.value) for entry in entries}


def accepted(text: str) -> tuple[bool, Any]:
    """Whether the reader takes the form of `text`, and its plain data."""
    node, _ = parse(text, "t")
    assert node is not None
    findings = Findings()
    read_shape(FILE, node, (), findings)
    return not findings.problems, plain(node)


@given(documents(FILE, wrong=False))
def test_what_the_reader_takes_is_valid_under_the_schema(document: dict[str, Any]) -> None:
    takes, data = accepted(json.dumps(document))

    assert takes, "the documents drawn are sound"
    VALIDATOR.validate(data)


@given(st.fixed_dictionaries({"version": st.just(1)}, optional={"subscriptions": documents(SUBSCRIPTIONS, wrong=True)}))
def test_reader_and_schema_refuse_the_same(document: dict[str, Any]) -> None:
    # but for durations out of bounds, which no schema can compare; none are drawn here
    takes, data = accepted(json.dumps(document))

    assert takes is VALIDATOR.is_valid(data)


@pytest.mark.parametrize("file", sorted((PROJECT / "topology").glob("*.yaml")), ids=lambda file: file.name)
def test_our_own_topology_is_valid_under_the_schema(file: Path) -> None:
    takes, data = accepted(file.read_text(encoding="utf-8"))

    assert takes
    VALIDATOR.validate(data)


@pytest.mark.parametrize(
    "name",
    ["an unknown key", "text for a list", "a duration without unit", "yes for true", "no class", "no version"],
)
def test_an_editor_marks_the_usual_mistakes(name: str) -> None:
    node, _ = parse(CASES[name][0], "t")
    assert node is not None

    assert not VALIDATOR.is_valid(plain(node))


def test_every_key_is_described() -> None:
    def described(schema: Any, path: str) -> None:
        for name, inner in schema.get("properties", {}).items():
            assert re.match(r"[A-Z].*\.$", inner.get("description", "")), f"{path}.{name}"
            described(inner, f"{path}.{name}")
        for word in ("items", "additionalProperties"):
            if isinstance(inner := schema.get(word), dict):
                described(inner, path)

    described(SCHEMA, "")


def test_the_schema_in_the_docs_is_the_one_printed() -> None:
    kept = json.loads((PROJECT / "docs" / "topology.schema.json").read_text(encoding="utf-8"))

    assert kept == SCHEMA, "run `pipeline topology schema > docs/topology.schema.json`"


def test_the_schema_is_a_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
