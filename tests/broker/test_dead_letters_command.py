"""`pipeline dlq` as a person meets it: real processes, their output and exit codes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.broker import TestVhost
from tests.support.dead_letters import SUBSCRIPTIONS, Bench, bench, event_ids, letter, letters


@pytest.fixture
async def given(vhost: TestVhost, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(vhost, tmp_path) as made:
        await made.declare()
        await made.put(*letters(range(3)), letter(3, error="app.errors.CardStolen"))
        yield made


async def test_the_list_has_a_line_for_each_subscription(given: Bench) -> None:
    await given.declare(SUBSCRIPTIONS["inventory"])

    code, out, err = await given.command("list")

    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == ["subscription", "payments", "inventory"]  # audit keeps none
    assert lines[1] == [
        "payments", "4", "2026-11-20", "10:00:00", "ValueError", "(3),", "app.errors.CardStolen", "(1)",
    ]  # fmt: skip
    assert lines[2] == ["inventory", "0"]


async def test_a_queue_that_is_missing_does_not_hide_the_others(given: Bench) -> None:
    code, out, _ = await given.command("list", "--json")

    rows = json.loads(out)
    assert code == 4
    assert (rows[0]["count"], rows[0]["errors"]) == (4, {"ValueError": 3, "app.errors.CardStolen": 1})
    assert rows[0]["oldest"] == "2026-11-20T10:00:00+00:00"
    assert "inventory.dlq is not on the broker" in rows[1]["problem"]


async def test_show_has_a_line_for_each_letter(given: Bench) -> None:
    code, out, err = await given.command("show", "payments", "--error", "ValueError", "--limit", "2")

    assert code == 0, err
    lines = out.splitlines()
    assert lines[1].split() == [
        "order-00000", "order.created", "exhausted", "ValueError", "card", "refused", "3",
        "2026-11-20", "10:00:00", "2026-11-20", "10:00:00",
    ]  # fmt: skip
    assert lines[2].startswith("order-00001 ")
    assert lines[3:] == ["2 of 3 shown"]


async def test_show_with_an_id_tells_all_of_it(given: Bench) -> None:
    code, out, err = await given.command("show", "payments", "--id", "order-00002", "--id", "nobody")

    assert (code, err) == (1, "no dead letter of payments has the id nobody\n")
    for words in (
        "error         ValueError\n",
        "published to  events with key order.created\n",
        "  source: shop\n",
        "  2026-11-20 10:00:02  attempt 3   ValueError: card refused\n",
        "\nTraceback (most recent call last):\n  in take_payment\n",
        '\npayload (JSON, 15 bytes)\n{\n  "order_id": 2\n}\n',
    ):
        assert words in out

    code, out, _ = await given.command("show", "payments", "--id", "order-00002", "--json")
    (whole,) = json.loads(out)
    assert (code, whole["body"], len(whole["history"])) == (0, {"order_id": 2}, 3)


async def test_redrive_says_what_it_did(given: Bench) -> None:
    code, out, _ = await given.command("redrive", "payments", "--error", "*stolen", "--id", "nobody", "--dry-run")
    assert (code, out.splitlines()[-1]) == (1, "0 dead letters of payments would be redriven; nothing was changed")

    code, out, _ = await given.command("redrive", "payments", "--error", "*stolen")
    assert (code, out) == (0, "1 dead letter of payments redriven; 3 left\n")
    assert await given.ids("payments") == event_ids([3])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "paymnts"], 2, "no subscription paymnts (did you mean payments?)"),
        (["show", "audit"], 2, "audit keeps no dead letters"),
        (["show", "inventory"], 4, "inventory.dlq is not on the broker; `pipeline topology apply`"),
        (["redrive", "payments"], 2, "nothing is chosen to redrive"),
        (["redrive", "payments", "--all", "--id", "1"], 2, "--all means every dead letter"),
        (["show", "payments", "--older-than", "x"], 2, "write a duration like 30s"),
        (["export", "payments", "--output", "/nowhere/x"], 2, "/nowhere/x can't be written"),
    ],
)
async def test_what_is_wrong_is_said_in_a_sentence(given: Bench, arguments: list[str], code: int, words: str) -> None:
    found, out, err = await given.command(*arguments)

    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


async def test_a_broker_that_is_not_there_is_named(given: Bench) -> None:
    given.environ["PIPELINE_AMQP_URL"] = "amqp://guest:guest@127.0.0.1:1"

    code, _, err = await given.command("list")

    assert code == 4
    assert "127.0.0.1:1" in err
    assert "Traceback" not in err
