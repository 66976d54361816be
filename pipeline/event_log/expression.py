"""A small language over events: `data.amount > 100 and type in ["a", "b"]`. In: text. Out: a test of an `Entry`.

It knows the event and nothing else: id, type, source, subject, time, and paths into data. A path that leads nowhere is
null. Comparing what can't be compared (a text with a number) is false. `time` is compared as a time.

    or := and ("or" and)*      and := not ("and" not)*      not := "not" not | comparison
    comparison := value (("==" "!=" "<" "<=" ">" ">=" "in" "not in") value)?
    value := path | number | "text" | 'text' | true | false | null | "[" value, ... "]" | "(" or ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pipeline.errors import BadExpression
from pipeline.event_log.comparing import COMPARE, as_time, at_path, is_true

LONGEST = 4096  # characters
DEEPEST = 32  # of parentheses, lists and not
ATTRIBUTES = ("id", "type", "source", "subject", "time")
DATA = "data"

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?))
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>[^\W\d][\w-]*(?:\.[\w-]+)*)
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")
_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None}
_WORDS = {"and", "or", "not", "in", *_CONSTANTS}


class Facts(Protocol):
    """What an expression may ask of an event."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def time(self) -> datetime: ...
    @property
    def data(self) -> Any: ...


Value = Callable[[Facts], Any]


def compiled(text: str) -> Callable[[Facts], bool]:
    """The test that `text` stands for. Raises: BadExpression that shows the place."""
    if len(text) > LONGEST:
        raise BadExpression(f"the expression has {len(text)} characters; at most {LONGEST} are read")
    value = _Parser(text).whole()
    return lambda facts: is_true(value(facts))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number | text | word | sign | end
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class _Node:
    """`constant` is set for what the expression itself says; `timely` for the event's time."""

    value: Value
    at: int
    is_constant: bool = False
    timely: bool = False

    def __call__(self, facts: Facts) -> Any:
        return self.value(facts)


class _Parser:
    """Recursive descent; every level of it that the text can ask for is counted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._cut()
        self._next = 0
        self._depth = 0

    def whole(self) -> _Node:
        node = self._or()
        if self._peek().kind != "end":
            raise self._wrong(self._peek(), "and, or, or the end is expected here")
        return node

    def _cut(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self._text.rstrip()):
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                token = _Token("", self._text[at], at)
                what = "a text that does not end" if token.text in "\"'" else f"{token.text!r} means nothing"
                raise self._wrong(token, what)
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", len(self._text))]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _accept(self, *texts: str) -> _Token | None:
        token = self._peek()
        return self._take() if token.kind in ("word", "sign") and token.text in texts else None

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(token, f"more than {DEEPEST} levels deep")

    def _or(self) -> _Node:
        nodes = [self._and()]
        while self._accept("or"):
            nodes.append(self._and())
        if len(nodes) == 1:
            return nodes[0]
        return _Node(lambda facts: any(is_true(node(facts)) for node in nodes), nodes[0].at)

    def _and(self) -> _Node:
        nodes = [self._not()]
        while self._accept("and"):
            nodes.append(self._not())
        if len(nodes) == 1:
            return nodes[0]
        return _Node(lambda facts: all(is_true(node(facts)) for node in nodes), nodes[0].at)

    def _not(self) -> _Node:
        token = self._accept("not")
        if token is None:
            return self._comparison()
        self._deeper(token)
        node = self._not()
        self._depth -= 1
        return _Node(lambda facts: not is_true(node(facts)), token.at)

    def _comparison(self) -> _Node:
        left = self._value()
        sign = self._accept("==", "!=", "<=", ">=", "<", ">", "in", "not")
        if sign is None:
            return left
        name = sign.text
        if name == "not":
            if self._accept("in") is None:
                raise self._wrong(self._peek(), "in is expected behind not here")
            name = "not in"
        right = self._value()
        if follow := self._accept("==", "!=", "<=", ">=", "<", ">", "in"):
            raise self._wrong(follow, "comparisons can't be chained; join them with and")
        left, right = self._timely(left, right), self._timely(right, left)
        compare = COMPARE[name]
        return _Node(lambda facts: compare(left(facts), right(facts)), left.at)

    def _timely(self, node: _Node, other: _Node) -> _Node:
        """A text that is compared with the event's time, as the time it names."""
        if not other.timely or not node.is_constant:
            return node
        given = node.value(_NOTHING)
        each = given if isinstance(given, list) else [given]
        try:
            times = [item if item is None else as_time(item) for item in each]
        except (ValueError, TypeError, OverflowError):
            token = _Token("", "", node.at)
            raise self._wrong(token, "time is compared with a time such as '2027-01-31T06:00Z'") from None
        found = times if isinstance(given, list) else times[0]
        return _Node(lambda facts: found, node.at, True)

    def _value(self) -> _Node:
        token = self._take()
        match token.kind, token.text:
            case "number", text:
                number = float(text) if any(mark in text for mark in ".eE") else self._whole_number(token)
                return _Node(lambda facts: number, token.at, True)
            case "text", text:
                inner = _ESCAPE.sub(r"\1", text[1:-1])
                return _Node(lambda facts: inner, token.at, True)
            case "word", text if text in _CONSTANTS:
                constant = _CONSTANTS[text]
                return _Node(lambda facts: constant, token.at, True)
            case "word", text if text not in _WORDS:
                return self._path(token)
            case "sign", "(":
                self._deeper(token)
                node = self._or()
                self._close(")")
                return node
            case "sign", "[":
                return self._list(token)
        raise self._wrong(token, "a value is expected here")

    def _whole_number(self, token: _Token) -> int:
        if len(token.text) > 300:
            raise self._wrong(token, "a number of more than 300 digits")
        return int(token.text)

    def _list(self, opened: _Token) -> _Node:
        self._deeper(opened)
        items: list[_Node] = []
        while not self._accept("]"):
            if items and not self._accept(","):
                raise self._wrong(self._peek(), ", or ] is expected here")
            items.append(self._value())
        self._depth -= 1
        return _Node(lambda facts: [item(facts) for item in items], opened.at, all(i.is_constant for i in items))

    def _close(self, sign: str) -> None:
        if not self._accept(sign):
            raise self._wrong(self._peek(), f"{sign} is expected here")
        self._depth -= 1

    def _path(self, token: _Token) -> _Node:
        first, *rest = token.text.split(".")
        if first == DATA:
            return _Node(lambda facts: at_path(facts.data, rest), token.at)
        if first not in ATTRIBUTES:
            raise self._wrong(token, f"{first} is nothing of an event; there are {', '.join(ATTRIBUTES)} and data.…")
        if rest:
            raise self._wrong(token, f"{first} has nothing in it; only data has")
        return _Node(lambda facts: getattr(facts, first), token.at, timely=first == "time")

    def _wrong(self, token: _Token, message: str) -> BadExpression:
        """The error, with the expression and a mark under the place."""
        start = max(0, token.at - 60)
        shown = "".join(char if char.isprintable() else " " for char in self._text[start : token.at + 20])
        return BadExpression(
            f"the expression can't be read at character {token.at + 1}: {message}\n  {shown}\n  "
            + " " * (token.at - start)
            + "^"
        )


class _Nothing:
    """An event without anything, to ask constants for their value."""

    id = type = source = ""
    subject = None
    time = datetime.fromtimestamp(0, UTC)
    data = None


_NOTHING: Any = _Nothing()
