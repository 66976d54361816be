"""Whatever lies in a dead-letter queue can be looked at, and nothing in it reaches the terminal unescaped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline import message
from pipeline.dead_letters import EVERYTHING, peek, redrive
from pipeline.properties import Properties, encode_properties
from tests.support.broker import TestVhost
from tests.support.dead_letters import PAYMENTS, Bench, bench, event_ids, letters

ESCAPE = "\x1b[2J\x1b]0;owned\x07\u202e[red]"
BROKEN_ID = encode_properties(Properties(message_id="id-X", priority=0)).replace(b"id-X", b"id-\xff")
HOSTILE: list[tuple[Properties | bytes, bytes]] = [
    (Properties(), b""),
    (Properties(message_id="binary", type="photo.taken", content_type="image/png"), bytes(range(256))),
    (Properties(message_id=f"terminal{ESCAPE}", type=ESCAPE), json.dumps({"name": ESCAPE}).encode()),
    (
        Properties(
            message_id="markup",
            headers={
                message.ERROR: f"[bold]{ESCAPE}",
                message.ERROR_MESSAGE: ESCAPE,
                message.TRACEBACK: f"a\n{ESCAPE}",
            },
        ),
        b"[/red][link=http://evil]",
    ),
    (
        Properties(
            message_id="odd headers",
            headers={
                message.ATTEMPT: "many",
                message.FIRST_FAILURE: "yesterday",
                message.LAST_FAILURE: 12,
                message.HISTORY: '[1, {"attempt": "x"}, {"at": "never", "error": null}]',
                message.REDRIVES: -5,
                "x-death": [{"reason": 7, "time": "soon", "routing-keys": "x"}, "nothing"],
                "table": {
                    "deep": [{"bytes": b"\xff\x00", "when": datetime(2026, 1, 1, tzinfo=UTC), "sum": Decimal("1.5")}]
                },
            },
        ),
        b'{"not": "closed"',
    ),
    (
        Properties(
            message_id="secrets",
            headers={"Authorization": "Bearer hunter2", "x-api-key": "hunter2", "nested": {"db_password": "hunter2"}},
        ),
        b"{}",
    ),
    (BROKEN_ID, b'{"a": "\\ud800"}'),
    (Properties(message_id="deep", content_type="application/json"), b"[" * 100_000),
    (Properties(message_id="packed", content_encoding="gzip"), b"no gzip"),
    (Properties(message_id="large"), b'{"text": "' + b"x" * 1_000_000 + b'"}'),
    (Properties(message_id="a" * 255), b"1e999"),
]


@pytest.fixture
async def given(vhost: TestVhost, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(vhost, tmp_path) as made:
        await made.declare()
        await made.put(*letters(range(2)))
        await made.put_raw(*HOSTILE)
        await made.put(*letters(range(2, 4)))
        yield made


async def test_every_message_is_shown_and_stays(given: Bench) -> None:
    looks = [await peek(given.settings, PAYMENTS, whole=True) for _ in range(2)]

    assert looks[0] == looks[1]
    assert len(looks[0]) == 4 + len(HOSTILE)
    assert {each.id for each in looks[0]} >= {"", "binary", "deep", "large", "id-ÿ", *event_ids(range(4))}
    assert await given.count("payments.dlq") == 4 + len(HOSTILE)


async def test_nothing_unprintable_reaches_the_terminal(given: Bench) -> None:
    ids = [each.id for each in await peek(given.settings, PAYMENTS)]
    options = [word for event_id in ids if event_id for word in ("--id", event_id)]

    outputs = []
    for arguments in (
        ["list", "payments"],
        ["show", "payments"],
        ["export", "payments"],
        ["redrive", "payments", "--all", "--dry-run"],
        ["show", "payments", *options],
    ):
        code, out, err = await given.command(*arguments)
        assert code == 0, err
        outputs.append(out)

    assert all(line.isprintable() for out in outputs for line in out.split("\n"))
    assert not any("hunter2" in out for out in outputs)
    out = outputs[-1]
    assert "\\x1b[2J" in out
    assert "[bold]" in out
    assert "[/red][link=http://evil]" in out


async def test_an_export_holds_every_body_to_the_byte(given: Bench, tmp_path: Path) -> None:
    target = tmp_path / "letters.jsonl"

    code, out, err = await given.command("export", "payments", "--output", str(target))

    assert (code, out) == (0, ""), err
    assert target.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [line["size"] for line in lines[2:-2]] == [len(body) for _, body in HOSTILE]
    assert lines[0]["body"] == {"order_id": 0}
    assert lines[3]["body_base64"].startswith("AAECAwQF")
    assert lines[0]["history"][0] == {
        "attempt": 1, "at": "2026-11-20T10:00:00+00:00", "error": "ValueError", "message": "card refused",
    }  # fmt: skip
    assert lines[0]["attributes"] == {"source": "shop", "specversion": "1.0"}
    assert await given.count("payments.dlq") == len(lines) == 4 + len(HOSTILE)


async def test_all_of_it_can_be_redriven(given: Bench) -> None:
    report = await redrive(given.settings, PAYMENTS, EVERYTHING)

    assert report.done == 4 + len(HOSTILE)
    assert await given.count("payments") == 4 + len(HOSTILE)
    assert await given.count("payments.dlq") == 0
