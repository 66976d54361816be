"""Checks a tree against its kind. In: `Node` and `Kind`. Out: plain data (dicts, lists, scalars), places and problems.

Durations come out as whole milliseconds and sizes as bytes. What is wrong is noted and left out of the data, so that
one pass reports everything.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from pipeline.topology.findings import Findings, Path, did_you_mean
from pipeline.topology.keys import DAY_MS
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
from pipeline.topology.model import duration_text
from pipeline.topology.scalars import duration_ms, size_bytes
from pipeline.topology.yaml_tree import Items, Node, Scalar, Table

WRONG: Any = object()  # stands for a value that was noted as wrong
_TRUTHS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def read_shape(kind: Kind, node: Node, path: Path, findings: Findings) -> Any:
    """The plain data of `node`, or `WRONG` when nothing of it can be used."""
    findings.values[path] = node.place
    match kind:
        case Record():
            return _record(kind, node, path, findings)
        case MapOf():
            return _map(kind, node, path, findings)
        case ListOf():
            return _list(kind, node, path, findings)
        case Free():
            return _free(kind, node, path, findings)
        case _:
            if isinstance(node, Scalar):
                return _scalar(kind, node, path, findings)
            return _wrong(path, findings, f"must be {_expected(kind)}, found {_found(node)}")


def _scalar(kind: ScalarKind, node: Scalar, path: Path, findings: Findings) -> Any:
    match kind:
        case Text():
            return _text(kind, node, path, findings)
        case Span() | Size():
            return _quantity(kind, node, path, findings)
        case Choice():
            return _choice(kind, node, path, findings)
        case Whole() | Real():
            return _number(kind, node, path, findings)
        case Flag():
            if isinstance(node.value, bool):
                return node.value
            hint = f"did you mean {_TRUTHS[node.text.lower()]}?" if node.text.lower() in _TRUTHS else ""
            return _wrong(path, findings, f"must be true or false, found {_found(node)}", hint)
        case Constant(value=constant):
            if node.value == constant and not isinstance(node.value, bool | float):
                return node.value
            return _wrong(path, findings, f"must be {constant}, found {_found(node)}")


def _record(kind: Record, node: Node, path: Path, findings: Findings) -> Any:
    if isinstance(node, Scalar) and node.value is None:
        node = Table((), node.place)  # `order.created:` with nothing behind it
    if not isinstance(node, Table):
        return _wrong(path, findings, f"must be a mapping, found {_found(node)}")
    kinds = {key.name: key.kind for key in kind.keys}
    data: dict[str, Any] = {}
    for entry in node.entries:
        inside = (*path, entry.key)
        findings.keys[inside] = entry.key_place
        if entry.key not in kinds:
            hint = "YAML's merge key is not supported" if entry.key == "<<" else did_you_mean(entry.key, kinds)
            findings.error(inside, "unknown key", hint, key=True)
            continue
        if (value := read_shape(kinds[entry.key], entry.value, inside, findings)) is not WRONG:
            data[entry.key] = value
    there = {entry.key for entry in node.entries}
    for name in kind.required:
        if name not in there:
            findings.error(path, f"{name} is missing", key=True)
    return data


def _map(kind: MapOf, node: Node, path: Path, findings: Findings) -> Any:
    if isinstance(node, Scalar) and node.value is None:
        return {}  # `queues:` with nothing behind it
    if not isinstance(node, Table):
        hint = "write `name: {...}` entries" if isinstance(node, Items) else ""
        return _wrong(path, findings, f"must be a mapping, found {_found(node)}", hint)
    data: dict[str, Any] = {}
    for entry in node.entries:
        inside = (*path, entry.key)
        findings.keys[inside] = entry.key_place
        if problem := _text_problem(kind.name, entry.key):
            findings.error(inside, *problem, key=True)
        value = read_shape(kind.kind, entry.value, inside, findings)
        data[entry.key] = {} if value is WRONG else value  # its name stays known, so nothing that names it looks wrong
    return data


def _list(kind: ListOf, node: Node, path: Path, findings: Findings) -> Any:
    if isinstance(node, Scalar) and node.value is None and not kind.minimum:
        return []
    if not isinstance(node, Items):
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else ""
        return _wrong(path, findings, f"must be a list, found {_found(node)}", hint)
    if len(node.nodes) < kind.minimum:
        return _wrong(path, findings, "must not be empty")
    # A wrong item keeps its seat: paths are indexes.
    return [read_shape(kind.kind, item, (*path, index), findings) for index, item in enumerate(node.nodes)]


def _free(kind: Free, node: Node, path: Path, findings: Findings) -> Any:
    if isinstance(node, Scalar) and node.value is None and not kind.minimum:
        return {}
    if not isinstance(node, Table):
        return _wrong(path, findings, f"must be a mapping, found {_found(node)}")
    if len(node.entries) < kind.minimum:
        return _wrong(path, findings, "must not be empty")
    return _anything(node, path, findings)


def _anything(node: Node, path: Path, findings: Findings) -> Any:
    findings.values[path] = node.place
    match node:
        case Scalar():
            if isinstance(node.value, int) and not -(2**63) <= node.value < 2**63:
                return _wrong(path, findings, "is over 64 bits")
            return node.value
        case Items():
            return [_anything(item, (*path, index), findings) for index, item in enumerate(node.nodes)]
        case Table():
            data = {}
            for entry in node.entries:
                inside = (*path, entry.key)
                findings.keys[inside] = entry.key_place
                if problem := _text_problem(Text("an argument's name", max_bytes=128), entry.key):
                    findings.error(inside, *problem, key=True)
                data[entry.key] = _anything(entry.value, inside, findings)
            return data


def _text(kind: Text, node: Scalar, path: Path, findings: Findings) -> Any:
    if not isinstance(node.value, str):
        hint = f'put it in quotes: "{node.text}"' if node.text else ""
        return _wrong(path, findings, f"must be {kind.what}, found {_found(node)}", hint)
    if problem := _text_problem(kind, node.value):
        return _wrong(path, findings, *problem)
    return node.value


def _text_problem(kind: Text, text: str) -> tuple[str, str] | None:
    example = f"such as {kind.example}" if kind.example else ""
    if len(text.encode()) > kind.max_bytes:
        return f"is {len(text.encode())} bytes long; {kind.max_bytes} is the most", ""
    if not re.fullmatch(kind.pattern, text):
        return (f"{text!r} is not {kind.what}" if text else f"is empty; it must be {kind.what}"), example
    return None


def _choice(kind: Choice, node: Scalar, path: Path, findings: Findings) -> Any:
    if node.value in kind.values or (kind.pattern and re.fullmatch(kind.pattern, node.text)):
        return node.value
    hint = did_you_mean(node.text, kind.values)
    return _wrong(
        path, findings, f"{node.text!r} is not possible here", f"{hint}, or {kind.also}" if kind.also else hint
    )


def _number(kind: Whole | Real, node: Scalar, path: Path, findings: Findings) -> Any:
    fraction = isinstance(node.value, float) and isinstance(kind, Whole)
    if isinstance(node.value, bool) or fraction or not isinstance(node.value, int | float):
        bare = node.text.replace("_", "")
        hint = f"write {bare}" if bare != node.text and bare.isdigit() else ""
        return _wrong(path, findings, f"must be {_expected(kind)}, found {_found(node)}", hint)
    if not kind.minimum <= node.value <= kind.maximum:
        return _wrong(path, findings, f"is {node.text}; it must be {kind.minimum} to {kind.maximum}")
    return node.value


def _quantity(kind: Span | Size, node: Scalar, path: Path, findings: Findings) -> Any:
    span = isinstance(kind, Span)
    amount = duration_ms(node.text) if span else size_bytes(node.text)
    if not span and isinstance(node.value, int) and not isinstance(node.value, bool):
        amount = Decimal(node.value)
    if amount is None:
        number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        hint = f"did you mean {node.text}s?" if span and number and not node.text.startswith("-") else ""
        return _wrong(path, findings, f"must be {_expected(kind)}, found {_found(node)}", hint)
    if amount != int(amount):
        return _wrong(path, findings, f"is {node.text}; it must be whole {'milliseconds' if span else 'bytes'}")
    if not kind.minimum <= amount <= kind.maximum:
        low, high = (_shown(kind, bound) for bound in (kind.minimum, kind.maximum))
        return _wrong(path, findings, f"is {node.text}; it must be {low} to {high}")
    return int(amount)


def _shown(kind: Span | Size, bound: int) -> str:
    if isinstance(kind, Size):
        return f"{bound} bytes"
    # 49 days say more than 4294967295 ms
    return duration_text(bound / 1000 if bound < DAY_MS else bound // DAY_MS * DAY_MS / 1000)


def _expected(kind: ScalarKind) -> str:
    match kind:
        case Text(what=what):
            return what
        case Flag():
            return "true or false"
        case Whole():
            return "a whole number"
        case Real():
            return "a number"
        case Span():
            return "a duration such as 500ms, 30s, 2m, 1h or 1d"
        case Size():
            return "a size such as 512B, 64KB or 10MiB"
        case Choice(values=values):
            return f"one of {', '.join(values)}"
        case Constant(value=value):
            return str(value)


def _found(node: Node) -> str:
    match node:
        case Items():
            return "a list"
        case Table():
            return "a mapping"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return node.text
        case Scalar(value=int() | float()):
            return f"the number {node.text}"
        case Scalar():
            return f"text {node.text[:40]!r}"


def _wrong(path: Path, findings: Findings, message: str, hint: str = "") -> Any:
    findings.error(path, message, hint)
    return WRONG
