"""The archive, what can be looked at in the log, and a log that has lost its beginning: on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.event_log.ledger import FILE, ids, ledger, publish
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit

SMALL = FILE.replace("{exchange: events}", "{exchange: events, max_size: 64KB, segment_size: 64KB}")


async def offsets(application: Application) -> tuple[int, int]:
    """The first and the last offset of the log."""
    found = (await application.good("events", "stats", "--json")).json()
    return found["begin"], found["end"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
async def test_an_archive_grows_by_what_is_new_and_can_be_replayed(vhost: TestVhost, tmp_path: Path, form: str) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(300))
    command = ("events", "archive", "--to", "kept", "--format", form, "--json")
    assert (await application.good(*command)).json()["events"] == 300
    await publish(application, ids(200, 300), "order.paid")
    # what a killed archiver leaves: a part that nobody knows of
    left = tmp_path / "kept" / f"2020-01-01.{0:020}.{'jsonl.zst' if form == 'jsonl' else 'parquet'}"
    left.write_bytes(b"torn")

    assert (await application.good(*command)).json()["events"] == 500
    assert (await application.good(*command)).json()["events"] == 500
    assert not left.exists()
    async with rabbit(vhost) as broker:
        assert len(await broker.take("ledger")) == 500

    done = await application.good("events", "replay", "--to", "ledger", "--from-archive", "kept", "--json")

    assert done.json()["copied"] == 500
    async with rabbit(vhost) as broker:
        copies = await broker.take("ledger")
    assert [each.message_id for each in copies] == ids(500)
    assert [json.loads(each.body) for each in copies] == [{"amount": number} for number in range(500)]
    assert {each.type for each in copies[300:]} == {"order.paid"}
    # as the original, but for the mark
    kept = {"cloudEvents_specversion", "cloudEvents_source", "cloudEvents_time", "x-delivery-count"}
    assert set(copies[0].headers) <= {*kept, "pipeline-replay", "pipeline-exchange", "pipeline-routing-key"}
    assert copies[0].headers["pipeline-exchange"] == "events"


async def test_a_log_that_lost_its_beginning_says_so(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path, SMALL)
    await application.apply()
    await publish(application, ids(50))
    command = ("events", "archive", "--to", "kept", "--json")
    await application.good(*command)
    for start in range(50, 30_050, 1000):  # a segment ends between two writes only, and is dropped in time
        await publish(application, ids(1000, start))
        begin, end = await offsets(application)
        if begin > 50 and start >= 3000:
            break
    assert begin > 50, "the stream has dropped segments"

    refused = await application.run(*command)
    replayed = await application.run("events", "replay", "--to", "ledger", "--since", "10")

    assert refused.code == 4
    assert f"begins at offset {begin:,} now, and 50 was to be read next" in refused.err
    assert "--from-earliest" in refused.err
    assert replayed.code == 4
    assert "--from-earliest" in replayed.err
    assert (await application.good(*command, "--from-earliest")).json()["next"] == end + 1
    done = await application.good("events", "replay", "--to", "ledger", "--since", "10", "--from-earliest", "--json")
    assert done.json()["copied"] == end + 1 - begin


async def test_the_log_can_be_looked_at(vhost: TestVhost, tmp_path: Path) -> None:
    application = ledger(vhost, tmp_path)
    await application.apply()
    await publish(application, ids(100))
    await publish(application, ids(10, 100), "order.paid")

    last = await application.good("events", "tail", "-n", "3", "--type", "order.cr*", "--json")
    assert last.out == "", "a pattern is of words"
    last = await application.good("events", "tail", "-n", "3", "--type", "*.created", "--json")
    assert [json.loads(line)["id"] for line in last.out.splitlines()] == ids(3, 97)
    shown = (await application.good("events", "show", "e000042", "--json")).json()
    assert (shown["data"], shown["type"], shown["specversion"]) == ({"amount": 42}, "order.created", "1.0")
    assert (await application.run("events", "show", "e999999")).code == 1
    stats = (await application.good("events", "stats", "--json")).json()
    assert (stats["count"], stats["types"]["order.paid"]["count"], stats["end"]) == (110, 10, 109)
    assert "order.paid" in (await application.good("events", "stats")).out
    await application.good("events", "export", "--to", "out.jsonl", "--since", "1h", "--where", "data.amount >= 100")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids(10, 100)
