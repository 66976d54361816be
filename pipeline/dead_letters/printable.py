"""Text of unknown origin made fit for eyes. In: whatever a message holds. Out: text without control or secret."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import date
from typing import Any

HIDDEN = "***"
_SECRET_WORDS = (
    "authorization", "password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key",
    "credential", "cookie", "session",
)  # fmt: skip


def one_line(text: str, most: int = 0) -> str:
    r"""`text` on one line, control and direction characters as escapes (`\x1b`); cut to `most` characters if given."""
    if most and len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isprintable() else "".join(map(_visible, text))


def block(text: str) -> str:
    """`text` with its lines kept, everything else that is not printable as escapes."""
    lines = text.replace("\r\n", "\n").replace("\t", "    ").split("\n")
    return "\n".join(one_line(line) for line in lines)


def hide_secrets(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers with the values of those named like a secret replaced, tables in tables too."""
    return {name: HIDDEN if _is_secret(name) else _hidden_within(value) for name, value in headers.items()}


def json_able(value: Any) -> Any:
    """An AMQP header's value as JSON has it: bytes become base64, times ISO 8601, decimals text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case date():
            return value.isoformat()
        case Mapping():
            return {str(name): json_able(item) for name, item in value.items()}
        case list() | tuple():
            return [json_able(item) for item in value]
        case _:
            return str(value)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return any(word in plain for word in _SECRET_WORDS)


def _hidden_within(value: Any) -> Any:
    match value:
        case Mapping():
            return hide_secrets(value)
        case list() | tuple():
            return [_hidden_within(item) for item in value]
        case _:
            return value
