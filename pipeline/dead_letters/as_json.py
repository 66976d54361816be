"""A dead letter as JSON. Pure. In: letters. Out: dicts that `json.dumps` takes, nothing of the body lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.dead_letters.letter import DeadLetter
from pipeline.dead_letters.printable import json_able
from pipeline.dead_letters.summary import Summary


def brief_json(letter: DeadLetter) -> dict[str, Any]:
    """What a table shows of it."""
    return {
        "id": letter.id,
        "type": letter.type,
        "subscription": letter.subscription,
        "reason": letter.reason,
        "error": letter.error,
        "message": letter.message,
        "attempts": letter.attempts,
        "first_failure": _iso(letter.first_failure),
        "last_failure": _iso(letter.last_failure),
        "redrives": letter.redrives,
        "size": letter.size,
    }


def whole_json(letter: DeadLetter) -> dict[str, Any]:
    """All of it. The body is `body` when it is JSON that reads and writes without loss, else `body_base64`."""
    history = [
        {"attempt": past.attempt, "at": _iso(past.at), "error": past.error, "message": past.message}
        for past in letter.history
    ]
    rest = {
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "content_type": letter.content_type,
        "content_encoding": letter.content_encoding,
        "attributes": dict(letter.attributes),
        "headers": json_able(letter.headers),
        "traceback": letter.traceback,
        "history": history,
    }
    try:
        body = {"body": lossless_json(letter.body)}
    except ValueError:
        body = {"body_base64": base64.b64encode(letter.body).decode()}
    return brief_json(letter) | rest | body


def json_line(letter: DeadLetter) -> bytes:
    """`whole_json` as one line of ASCII, the line's end included."""
    return json.dumps(whole_json(letter), separators=(",", ":")).encode() + b"\n"


def summary_json(summary: Summary) -> dict[str, Any]:
    """A queue's figures."""
    found = asdict(summary)
    found |= {"oldest": _iso(summary.oldest), "newest": _iso(summary.newest)}
    found |= {"errors": dict(summary.errors), "types": dict(summary.types)}
    return found


def lossless_json(body: bytes) -> Any:
    """The body's JSON value. Raises: ValueError when it is none, or when writing it again would say something else."""
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_float=_exact_float, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _exact_float(text: str) -> float:
    value = float(text)
    try:
        same = Decimal(text) == Decimal(repr(value))
    except ArithmeticError:
        same = False
    if not same:
        raise ValueError(f"{text[:40]} is not a float's number")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
