"""Values of expressions compared. In: JSON values and times. Out: true or false, never an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any


def at_path(value: Any, path: list[str]) -> Any:
    """What a path leads to; None when it leads nowhere."""
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def is_true(value: Any) -> bool:
    """Only true is true: a number or a text by itself says nothing."""
    return value is True


def as_time(value: Any) -> datetime:
    """The time a text names, UTC unless it says otherwise. Raises: TypeError, ValueError, OverflowError."""
    if not isinstance(value, str):
        raise TypeError
    time = datetime.fromisoformat(value)
    return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def in_order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def ordered(left: Any, right: Any) -> bool:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (left, right))
        alike = isinstance(left, str) and isinstance(right, str)
        timely = isinstance(left, datetime) and isinstance(right, datetime)
        return (numbers or alike or timely) and compare(left, right)

    return ordered


def within(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(equal(left, each) for each in right)
    return isinstance(left, str) and isinstance(right, str) and left in right


COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": in_order(lambda left, right: left < right),
    "<=": in_order(lambda left, right: left <= right),
    ">": in_order(lambda left, right: left > right),
    ">=": in_order(lambda left, right: left >= right),
    "in": within,
    "not in": lambda left, right: not within(left, right),
}
