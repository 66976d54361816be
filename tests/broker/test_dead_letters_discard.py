"""Removing dead letters: only the chosen, only when asked, and not before they are written down."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.dead_letters import Selection, discard, peek
from pipeline.errors import ConfigurationError
from tests.support.broker import TestVhost
from tests.support.dead_letters import COMMAND, PAYMENTS, Bench, bench, event_ids, letter, letters


@pytest.fixture
async def given(vhost: TestVhost, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(vhost, tmp_path) as made:
        await made.declare()
        await made.put(*letters(range(40)))
        yield made


async def test_only_the_chosen_go_and_are_written_down_first(given: Bench, tmp_path: Path) -> None:
    target = tmp_path / "gone.jsonl"
    chosen = Selection(ids=frozenset(event_ids([3, 17, 39])))

    report = await discard(given.settings, PAYMENTS, chosen, export_to=target)

    assert (report.done, report.left) == (3, 37)
    written = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert [line["id"] for line in written] == event_ids([3, 17, 39])
    assert [line["body"]["order_id"] for line in written] == [3, 17, 39]
    assert await given.ids("payments.dlq") == [each for each in event_ids(range(40)) if each not in chosen.ids]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere/gone.jsonl", "No such file or directory"),
        ("folder", "Is a directory"),
    ],  # found out at the start, the end
)
async def test_nothing_goes_when_it_can_not_be_written_down(given: Bench, tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    before = _names(tmp_path)

    with pytest.raises(ConfigurationError, match=f"{place} can't be written: {why}"):
        await discard(given.settings, PAYMENTS, Selection(), export_to=tmp_path / place)

    assert await given.ids("payments.dlq") == event_ids(range(40))
    assert _names(tmp_path) == before  # no half-written file is left behind


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def test_a_letter_that_came_after_the_question_stays(given: Bench) -> None:
    asked_about = await peek(given.settings, PAYMENTS)
    await given.put(letter(40))

    await discard(given.settings, PAYMENTS, Selection(fingerprints=frozenset(each.fingerprint for each in asked_about)))

    assert await given.ids("payments.dlq") == event_ids([40])


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, range(41)), ("y", 0, [40])])
async def test_on_a_terminal_it_asks(given: Bench, answer: str, code: int, left: list[int]) -> None:
    terminal, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, "discard", "payments", "--all",
        env=given.environ, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    async with asyncio.timeout(20):
        while b"Remove 40 dead letters of payments for good? [y/N]" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 65536)

    # when one more dies before the answer
    await given.put(letter(40))
    os.write(terminal, f"{answer}\n".encode())

    assert await asyncio.wait_for(process.wait(), 60) == code
    os.close(terminal)
    assert await given.ids("payments.dlq") == event_ids(left)


async def test_the_command_refuses_without_a_choice_or_a_terminal(given: Bench) -> None:
    code, _, err = await given.command("discard", "payments")
    assert (code, "nothing is chosen to discard" in err) == (2, True)
    code, _, err = await given.command("discard", "payments", "--all")
    assert (code, "no terminal here; add --yes" in err) == (2, True)
    assert await given.count("payments.dlq") == 40

    code, out, err = await given.command("discard", "payments", "--all", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "40 dead letters of payments would be removed; nothing was changed")
    assert await given.count("payments.dlq") == 40

    code, out, err = await given.command("discard", "payments", "--all", "--yes", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "subscription": "payments", "dry_run": False, "chosen": 40, "done": 40, "left": 0, "missing": [],
    }  # fmt: skip
    assert await given.count("payments.dlq") == 0
