"""Removing dead letters: only the chosen, only when asked, and not before they are written down."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.dead_letters import Selection, discard, peek
from pipeline.errors import ConfigurationError
from pipeline.store import Store
from pipeline.store.failures import FailureNote
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


async def test_what_goes_is_noted_unless_another_letter_of_the_event_stays(given: Bench) -> None:
    # given an event with two letters, and one whose note tells how it failed
    await given.put(letter(3, error="KeyError"))
    store = await Store.open(given.settings.database_of("payments"), "payments")
    at = datetime.now(UTC) - timedelta(hours=1)
    await store.note_failures([FailureNote("order-00004", "order.created", "dead", 3, None, "exhausted", "why", at)])

    # when one of the two is removed, and two others
    chosen = [each for each in await peek(given.settings, PAYMENTS) if each.id in event_ids([3, 4, 5])]
    prints = frozenset(each.fingerprint for each in chosen if each.error != "KeyError")
    assert len(prints) == 3
    await discard(given.settings, PAYMENTS, Selection(fingerprints=prints))

    # then of these two it is known that they are gone, and how they had failed, as far as it was
    notes = await store.failures(event_ids([3, 4, 5]))
    assert [(note.event_id, note.state, note.attempt, note.reason, note.error) for note in notes.values()] == [
        ("order-00004", "discarded", 3, "exhausted", "why"),
        ("order-00005", "discarded", 3, "exhausted", ""),
    ]
    assert all(note.at > at for note in notes.values())

    # and what was on its way again since is not called dead by an older note
    await store.forget_dead(event_ids([4]), at)
    assert set(await store.failures(event_ids([4, 5]))) == set(event_ids([4, 5]))
    await store.forget_dead(event_ids([4]), datetime.now(UTC) + timedelta(seconds=1))
    assert set(await store.failures(event_ids([4, 5]))) == set(event_ids([5]))
    await store.close()


async def test_a_database_that_can_not_be_used_keeps_nobody_from_it(given: Bench, tmp_path: Path) -> None:
    # given a database that is none, and later none at all
    _make_file(tmp_path / "data", "payments.db", "this is no database" * 100)

    code, _, err = await given.command("discard", "payments", "--id", "order-00001", "--yes")
    assert (code, "events will still be shown as dead" in err) == (0, True), err
    _remove_files(tmp_path / "data")
    await discard(given.settings, PAYMENTS, Selection(ids=frozenset(event_ids([2]))))

    # then the letters are gone all the same, and none was made
    assert await given.count("payments.dlq") == 38
    assert _names(tmp_path / "data") == []


def _make_file(folder: Path, name: str, text: str) -> None:
    folder.mkdir()
    (folder / name).write_text(text)


def _remove_files(folder: Path) -> None:
    for each in folder.iterdir():
        each.unlink()


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
