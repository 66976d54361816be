"""A dead letter's body for eyes. Pure. In: a letter read whole. Out: text, safe to print, bounded."""

from __future__ import annotations

import json

from pipeline.codec.compression import decompress
from pipeline.dead_letters.as_json import lossless_json
from pipeline.dead_letters.letter import DeadLetter
from pipeline.dead_letters.printable import block
from pipeline.errors import EventError

SHOWN = 64 * 1024  # characters of text
HEX_SHOWN = 512  # bytes of what is no text
LARGEST_UNPACKED = 8 * 1024 * 1024  # bytes; a compressed body that grows beyond is shown as it is
HEX_COLUMNS = 16


def payload_text(letter: DeadLetter) -> tuple[str, str]:
    """(what it is and how much of it is shown, the text). JSON is indented; what is no text comes as a hex dump."""
    body, packed = letter.body, ""
    if letter.content_encoding:
        try:
            body = decompress(body, letter.content_encoding, LARGEST_UNPACKED)
            packed = f", {letter.size} bytes as {block(letter.content_encoding)}"
        except EventError as error:
            packed = f"; {error}"
    if not body:
        return f"empty{packed}", ""
    size = f"{len(body)} bytes{packed}"
    try:
        text, kind = _text_of(body)
    except UnicodeDecodeError:
        cut = f"; the first {HEX_SHOWN} are shown" if len(body) > HEX_SHOWN else ""
        return f"not text, {size}{cut}", _hex_dump(body[:HEX_SHOWN])
    cut = f"; the first {SHOWN} characters are shown" if len(text) > SHOWN else ""
    return f"{kind}, {size}{cut}", block(text[:SHOWN])


def _text_of(body: bytes) -> tuple[str, str]:
    """(text, kind). Raises: UnicodeDecodeError."""
    try:
        return json.dumps(lossless_json(body), indent=2, ensure_ascii=False), "JSON"
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        return body.decode("utf-8"), "text that is not JSON"


def _hex_dump(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), HEX_COLUMNS):
        row = data[at : at + HEX_COLUMNS]
        signs = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<{HEX_COLUMNS * 3}} {signs}")
    return "\n".join(lines)
