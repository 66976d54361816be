"""YAML text → a small tree that knows the place of every key and value. In: text. Out: `Node`, or a `YamlError`.

Nothing is ever constructed from a tag, and nothing is ever copied: tags beyond YAML's core ones, anchors and aliases
are refused, so a file can neither run code nor grow when read. Duplicate keys, which PyYAML takes silently, are errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from pipeline.topology.findings import Path, Place
from pipeline.topology.scalars import Value, plain_value

MAX_DEPTH = 20  # levels of nesting; the deepest key of the topology stands at level 5
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"str", "int", "float", "bool", "null"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One word or number: its value under YAML's core schema, and how it was written."""

    value: Value
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping."""

    key: str
    key_place: Place
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in file order, with no key twice."""

    entries: tuple[Entry, ...]
    place: Place


Node = Scalar | Items | Table


class YamlError(Exception):
    """The text is not YAML that a topology may be written in."""

    def __init__(self, message: str, place: Place, hint: str = "", path: Path = ()) -> None:
        super().__init__(message)
        self.message, self.place, self.hint, self.path = message, place, hint, path


@dataclass(slots=True)
class _Reader:
    file: str
    events: Iterator[Event]
    duplicates: list[YamlError]

    def node(self, event: Event, path: Path) -> Node:
        place = self.place(event)
        if isinstance(event, AliasEvent):
            raise YamlError(f"alias *{event.anchor} is not allowed", place, "write the value out again", path)
        if isinstance(event, NodeEvent) and event.anchor is not None:
            hint = "write the value out where it is used"
            raise YamlError(f"anchor &{event.anchor} is not allowed", place, hint, path)
        if len(path) >= MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep", place)
        match event:
            case ScalarEvent():
                return self.scalar(event, place, path)
            case SequenceStartEvent():
                self.check_tag(event.tag, "seq", place, path)
                nodes: list[Node] = []
                while not isinstance(inner := next(self.events), SequenceEndEvent):
                    nodes.append(self.node(inner, (*path, len(nodes))))
                return Items(tuple(nodes), place)
            case MappingStartEvent():
                self.check_tag(event.tag, "map", place, path)
                return self.table(place, path)
        raise YamlError("unexpected end of the document", place)

    def table(self, place: Place, path: Path) -> Table:
        entries: dict[str, Entry] = {}
        while not isinstance(inner := next(self.events), MappingEndEvent):
            key = self.node(inner, (*path, "?"))
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                shown = f"{key.text or 'null'} " if isinstance(key, Scalar) else ""
                raise YamlError(f"key {shown}is not text", key.place, "put it in quotes", path)
            inside = (*path, key.value)
            value = self.node(next(self.events), inside)
            if first := entries.get(key.value):
                hint = f"first at {first.key_place}"
                self.duplicates.append(YamlError("the key is there twice", key.place, hint, inside))
            else:
                entries[key.value] = Entry(key.value, key.place, value)
        return Table(tuple(entries.values()), place)

    def scalar(self, event: ScalarEvent, place: Place, path: Path) -> Scalar:
        text = event.value
        if event.tag is None:
            # implicit[0]: a plain scalar, whose type its text says; quoted and block scalars are text
            return Scalar(plain_value(text) if event.implicit[0] else text, text, place)
        name = event.tag.removeprefix(_CORE)
        if event.tag in ("!", f"{_CORE}str"):
            return Scalar(text, text, place)
        value = plain_value(text)
        if not event.tag.startswith(_CORE) or name not in _SCALAR_TAGS:
            raise _bad_tag(event.tag, place, path)
        if name != _core_name(value):
            raise YamlError(f"{text!r} does not fit its tag !!{name}", place, "leave the tag out", path)
        return Scalar(value, text, place)

    def check_tag(self, tag: str | None, name: str, place: Place, path: Path) -> None:
        if tag not in (None, "!", f"{_CORE}{name}"):
            raise _bad_tag(tag or "", place, path)

    def place(self, event: Event) -> Place:
        return _spot(event.start_mark, self.file)


def parse(text: str, file: str) -> tuple[Node | None, list[YamlError]]:
    """The tree of the one document in `text` (None: nothing but comments), and its duplicate keys.

    Raises: YamlError at the first thing that makes the rest unreadable.
    """
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        starts = iter(events)
        root: Node | None = None
        reader = _Reader(file, starts, [])
        for event in starts:
            if not isinstance(event, DocumentStartEvent):
                continue
            if root is not None:
                raise YamlError("a second document begins here", reader.place(event), "one file is one document")
            root = reader.node(next(starts), ())
    except yaml.reader.ReaderError as error:
        raise YamlError(f"character {_shown(error)} is not allowed", _at(text, error.position, file)) from error
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, file) from error
    if isinstance(root, Scalar) and root.value is None:
        root = None
    return root, reader.duplicates


def _syntax(error: yaml.MarkedYAMLError, file: str) -> YamlError:
    place = _spot(error.problem_mark, file)
    message = error.problem or "not YAML"
    if "'\\t'" in message:
        return YamlError("a tab can't be used for indentation", place, "indent with spaces")
    context = f" {error.context}" if error.context else ""
    hint = 'put a pattern that begins with * in quotes: "*.created"' if "alias" in context else ""
    return YamlError(f"not YAML: {message}{context}", place, hint)


def _bad_tag(tag: str, place: Place, path: Path) -> YamlError:
    hint = "a topology is plain YAML; leave it out"
    return YamlError(f"tag {tag.replace(_CORE, '!!')} is not allowed", place, hint, path)


def _spot(mark: Any, file: str) -> Place:
    return Place(file, 1, 1) if mark is None else Place(file, mark.line + 1, mark.column + 1)


def _core_name(value: Value) -> str:
    return {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value), "null")


def _shown(error: yaml.reader.ReaderError) -> str:
    code = error.character if isinstance(error.character, int) else ord(error.character)
    return f"U+{code:04X}"


def _at(text: str, position: int, file: str) -> Place:
    before = text[:position]
    return Place(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
