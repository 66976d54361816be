"""Plain YAML words → values, and durations and sizes. In: text of a scalar. Out: None, bool, int, float, str; seconds.

The rules are YAML 1.2's core schema, with our own regular expressions: PyYAML follows YAML 1.1, where `on`, `no` and
`1:30` silently become True, False and 90.
"""

from __future__ import annotations

import re
from decimal import Decimal
from math import isfinite

Value = None | bool | int | float | str

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 30  # no number of a topology is longer, and int() refuses texts over 4,300 digits

DURATION_PATTERN = r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)"
SIZE_PATTERN = r"[0-9]+(\.[0-9]+)?(B|KB|KiB|MB|MiB|GB|GiB)"

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# RabbitMQ's own meaning of the units: KB is 10^3 bytes, KiB 2^10.
_BYTES = {"B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[A-Za-z]+)")


def plain_value(text: str) -> Value:
    """The value of an unquoted scalar; what is not null, a boolean or a finite number is text."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and isfinite(number := float(text)):
        return number
    return text


def duration_ms(text: str) -> Decimal | None:
    """Milliseconds of `5s`, `1.5m`, `250ms`; None when it is no duration."""
    return _quantity(text, _MILLISECONDS)


def size_bytes(text: str) -> Decimal | None:
    """Bytes of `64KB`, `1.5MiB`, `512B`; None when it is no size."""
    return _quantity(text, _BYTES)


def _quantity(text: str, units: dict[str, int]) -> Decimal | None:
    match = _QUANTITY.fullmatch(text)
    if match is None or match["unit"] not in units or len(text) > _MAX_DIGITS:
        return None
    return Decimal(match["number"]) * units[match["unit"]]
