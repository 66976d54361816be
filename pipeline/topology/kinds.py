"""The kinds of value a topology file may hold. In: nothing. Out: `Kind`, a sealed union.

`keys` says which key takes which kind, `shape` reads them from a tree, `schema` tells editors about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Text:
    """Text that matches all of `pattern`; `what` names it in messages ("a module path")."""

    what: str = "text"
    pattern: str = r"[^\x00-\x1f\x7f]+"
    example: str = ""
    max_bytes: int = 255  # a short string of AMQP 0-9-1


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `minimum` to `maximum`."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Real:
    """A number from `minimum` to `maximum`."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Span:
    """A duration such as `30s`; read as whole milliseconds between the bounds."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, bare or such as `64KB`; read as whole bytes."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`, or text matching `pattern` when there is one (`also` says what that is)."""

    values: tuple[str, ...]
    pattern: str = ""
    also: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """Just this value."""

    value: int


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of at least `minimum` values."""

    kind: Kind
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping from names to values of one kind."""

    name: Text
    kind: Kind


@dataclass(frozen=True, slots=True)
class Free:
    """A mapping with any keys: RabbitMQ arguments or a policy's definition."""

    minimum: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a `Record`. `doc` is what editors and docs/topology.md say of it."""

    name: str
    kind: Kind
    doc: str
    required: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys."""

    keys: tuple[Key, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the keys that must be there."""
        return tuple(key.name for key in self.keys if key.required)


ScalarKind = Text | Flag | Whole | Real | Span | Size | Choice | Constant
Kind = ScalarKind | ListOf | MapOf | Free | Record
