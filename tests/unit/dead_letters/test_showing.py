"""Foreign text and bodies for eyes and for files: nothing harmful, nothing lost."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dead_letters.as_json import json_line, lossless_json
from pipeline.dead_letters.letter import DeadLetter
from pipeline.dead_letters.payload_text import HEX_SHOWN, SHOWN, payload_text
from pipeline.dead_letters.printable import block, hide_secrets, one_line
from pipeline.dead_letters.reading import read_dead_letter
from tests.unit.dead_letters.samples import PAYMENTS, WORKER_HEADERS, dead


def _letter(body: bytes, encoding: str = "") -> DeadLetter:
    return read_dead_letter(dead(WORKER_HEADERS, body, message_id="1", content_encoding=encoding), PAYMENTS)


@given(st.text())
def test_one_line_is_printable(text: str) -> None:
    assert one_line(text).isprintable()
    assert all(line.isprintable() for line in block(text).split("\n"))


def test_escapes_are_shown_as_such() -> None:
    assert one_line("a\x1b[2Jb\u202ec\nd") == "a\\x1b[2Jb\\u202ec\\nd"
    assert one_line("Zażółć gęślą jaźń") == "Zażółć gęślą jaźń"
    assert one_line("abcdef", 4) == "abc…"
    assert block("a\tb\r\nc\x07") == "a    b\nc\\x07"


def test_secrets_are_known_by_name() -> None:
    headers = {"X-Auth-Token": "1", "AUTHORIZATION": "2", "db-password": {"a": 3}, "list": [{"cookie": 4}], "tok": "5"}

    assert hide_secrets(headers) == {
        "X-Auth-Token": "***", "AUTHORIZATION": "***", "db-password": "***", "list": [{"cookie": "***"}], "tok": "5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b'{"a":[1,"\xc3\xa9"]}', "JSON, 14 bytes", '{\n  "a": [\n    1,\n    "é"\n  ]\n}'),
        (b"plain\x1b", "text that is not JSON, 6 bytes", "plain\\x1b"),
        (b"", "empty", ""),
        (b"\xff\x00A", "not text, 3 bytes", "000000  ff 00 41" + " " * 40 + " ..A"),
        (b"[" * 50_000, "text that is not JSON, 50000 bytes", "[" * 50_000),
    ],
)
def test_a_payload_is_shown_for_what_it_is(body: bytes, kind: str, text: str) -> None:
    assert payload_text(_letter(body)) == (kind, text)


def test_a_large_payload_is_cut_and_says_so() -> None:
    kind, text = payload_text(_letter(b"x" * (SHOWN + 1)))
    assert (kind, len(text)) == (
        f"text that is not JSON, {SHOWN + 1} bytes; the first {SHOWN} characters are shown",
        SHOWN,
    )
    kind, text = payload_text(_letter(b"\xff" * 10_000))
    assert f"the first {HEX_SHOWN} are shown" in kind
    assert len(text.splitlines()) == HEX_SHOWN // 16


def test_a_compressed_payload_is_unpacked_within_bounds() -> None:
    packed = gzip.compress(b'{"a": 1}')
    assert payload_text(_letter(packed, "gzip")) == (f"JSON, 8 bytes, {len(packed)} bytes as gzip", '{\n  "a": 1\n}')

    kind, _ = payload_text(_letter(gzip.compress(bytes(50_000_000)), "gzip"))
    assert "grows beyond" in kind
    kind, _ = payload_text(_letter(b"no gzip", "gzip"))
    assert kind.startswith("text that is not JSON, 7 bytes; gzip body can't be decompressed")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json)
def test_a_json_body_survives_an_export(value: Any) -> None:
    line = json.loads(json_line(_letter(json.dumps(value).encode())))

    assert line["body"] == value
    assert type(line["body"]) is type(value)


@given(st.binary())
def test_any_other_body_survives_an_export_to_the_byte(body: bytes) -> None:
    raw = json_line(_letter(body))
    line = json.loads(raw)

    assert raw.count(b"\n") == 1
    assert raw.isascii()
    if "body" in line:
        assert json.loads(body) == line["body"]
    else:
        assert base64.b64decode(line["body_base64"]) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b"0.1000000000000000055511151231257827",
        b"1e400",
        b"NaN",
        b"[1e99999999999999999999]",
        b"\xff",
        b"[" * 10**5,
    ],
)
def test_json_that_would_say_something_else_when_written_again_is_kept_as_bytes(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        lossless_json(body)
    line = json.loads(json_line(replace(_letter(b""), body=body)))
    assert base64.b64decode(line["body_base64"]) == body
