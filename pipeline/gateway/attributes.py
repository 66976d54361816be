"""CloudEvents attributes as a request gives them → those of an `Event`. In: texts by name. Out: checked values.

The rules are those of the CloudEvents specification, 1.0.2, sections 3 and 4, and what AMQP, databases and logs can
hold: no control characters anywhere, an id of at most 255 bytes, names of extensions in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import InvalidPayload
from pipeline.event import Event

VERSION = "1.0"
LONGEST_ID = 255  # bytes
LONGEST_TEXT = 1024  # characters of any other attribute
MOST_EXTENSIONS = 32
EXTENSION = re.compile(r"[a-z0-9]{1,32}")
# What a text must not hold (section 2.1): control characters, surrogates, and code points that are no characters.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,121}\+json")  # RFC 6838
URI = re.compile(r"[^\s<>\"{}|\\^`]+")
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")  # RFC 3339
CORE = frozenset({"specversion", "id", "type", "source", "time", "subject", "dataschema", "datacontenttype"})
DATA = frozenset({"data", "data_base64"})
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an event gets that does not say it. `type` "" where the event has to."""

    type: str
    id: str
    source: str
    time: datetime


def event_from(given: Mapping[str, Any], data: bytes, defaults: Defaults, strict: bool) -> Event[bytes]:
    """The event with these attributes, `data` being its JSON text. `strict` asks for all that CloudEvents asks for.

    Raises: InvalidPayload with every fault.
    """
    if len(given) > MOST_EXTENSIONS + len(CORE | DATA):
        raise invalid(("(whole)", f"at most {MOST_EXTENSIONS} extensions are taken"))
    faults: list[tuple[str, str]] = []
    if strict:
        faults += [(name, "is required") for name in ("specversion", "id", "source") if given.get(name) is None]
    if (version := given.get("specversion", VERSION)) != VERSION and version is not None:
        faults.append(("specversion", f"must be {VERSION}"))
    texts = {
        name: _text(name, value, faults) for name, value in given.items() if name not in DATA and value is not None
    }
    kind = texts.get("type") or defaults.type
    if not kind:
        faults.append(("type", "is required"))
    elif defaults.type and kind != defaults.type:
        faults.append(("type", f"must be {defaults.type}, as the address says"))
    event_id = texts.get("id") or defaults.id
    if len(event_id.encode("utf-8", "replace")) > LONGEST_ID or not event_id.isprintable():
        faults.append(("id", f"must be printable, and at most {LONGEST_ID} bytes"))
    for name in ("source", "dataschema"):
        if (uri := texts.get(name)) and not URI.fullmatch(uri):
            faults.append((name, "must be a URI"))
    extensions = {name: text for name, text in texts.items() if name not in CORE}
    odd = [name for name in extensions if not EXTENSION.fullmatch(name)]
    faults += [(name[:40], "extensions are named in lower-case letters and digits") for name in odd]
    if len(extensions) > MOST_EXTENSIONS:
        faults.append(("(whole)", f"at most {MOST_EXTENSIONS} extensions are taken"))
    time = _time(texts["time"], faults) if "time" in texts else defaults.time
    if faults:
        raise invalid(*faults)
    return Event(
        kind,
        data,
        event_id,
        texts.get("source") or defaults.source,
        time,
        texts.get("subject"),
        texts.get("dataschema"),
        json_type(texts.get("datacontenttype", JSON)),
        extensions,
    )


def invalid(*faults: tuple[str, str]) -> InvalidPayload:
    """To raise, with (path, message) of each fault."""
    return InvalidPayload("; ".join(f"{path}: {message}" for path, message in faults), faults)


def json_type(content_type: str) -> str:
    """A JSON media type in its short form. Raises: InvalidPayload when it is another."""
    essence, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if essence != JSON and MEDIA_TYPE.fullmatch(essence) is None:
        raise invalid(("datacontenttype", "must be JSON: application/json, or a type that ends in +json"))
    if any(each.startswith("charset=") and each.strip('"') not in _UTF8 for each in parameters):
        raise invalid(("datacontenttype", "must be UTF-8"))
    return essence


_UTF8 = frozenset({"charset=utf-8", 'charset="utf-8', "charset=utf8", "charset=us-ascii"})


def _text(name: str, value: Any, faults: list[tuple[str, str]]) -> str:
    """An attribute's value in its canonical text form; "" when it is at fault."""
    text = value if isinstance(value, str) else ""
    if name in CORE and not isinstance(value, str):
        faults.append((name, "must be a text"))
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, int) and -(2**31) <= value < 2**31:
        return str(value)
    elif not isinstance(value, str):
        faults.append((name[:40], "must be a text, a whole number of 32 bits, or true or false"))
    elif not value:
        faults.append((name[:40], "must not be empty"))
    elif len(value) > LONGEST_TEXT:
        faults.append((name[:40], f"must have at most {LONGEST_TEXT} characters"))
    elif FORBIDDEN.search(value):
        faults.append((name[:40], "must not hold control characters"))
    else:
        return text
    return ""


def _time(text: str, faults: list[tuple[str, str]]) -> datetime:
    if TIME.fullmatch(text):
        seconds, dot, rest = text.partition(".")
        if dot:  # Python reads 3 or 6 digits of a second's parts
            digits = re.match(r"\d+", rest)
            assert digits is not None
            text = f"{seconds}.{digits[0][:6]:0<6}{rest[digits.end() :]}"
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    if text:
        faults.append(("time", "must be an RFC 3339 time, such as 2026-11-20T12:00:00Z"))
    return datetime.now(UTC)
