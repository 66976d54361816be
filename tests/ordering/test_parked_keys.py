"""`on_dead`: what a dead letter means for what follows it, over restarts, until it is redriven or discarded."""

from __future__ import annotations

from pathlib import Path

from tests.ordering.stock import open_stock
from tests.support.broker import TestVhost


async def test_a_key_goes_on_after_a_dead_letter(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a key in which an event fails for good
    stock = open_stock(vhost, tmp_path)
    await stock.app.apply()
    await stock.publish([("a", 1, ""), ("a", 2, "always"), ("a", 3, "once"), ("a", 4, ""), ("b", 1, "")])

    # When it is worked on
    await stock.app.good("worker", "start", "--until-empty")

    # Then the event is a dead letter, and those behind it were processed in their order
    assert stock.effects() == {"a": [1, 3, 4], "b": [1]}
    # And the books balance, as for any subscription
    (account,) = (await stock.app.good("accounts", "--json")).json()["accounts"]
    assert (account["published"], account["processed"], account["dead_lettered"]) == (5, 4, 1)
    assert stock.dead() == ["a-2"]


async def test_a_parked_key_waits_over_restarts_until_it_is_redriven(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a key with an event that can't be processed yet, and one beside it
    stock = open_stock(vhost, tmp_path, on_dead="park")
    await stock.app.apply()
    await stock.publish([("a", 1, ""), ("a", 2, "until mended"), ("a", 3, ""), ("b", 1, ""), ("a", 4, "")])

    # When it is worked on, and again later, by another process, with more events
    await stock.app.good("worker", "start", "--until-empty")
    await stock.publish([("a", 5, ""), ("b", 2, "")])
    await stock.app.good("worker", "start", "--until-empty")

    # Then what follows it lies behind it in the dead-letter queue, and the other key went on
    assert stock.effects() == {"a": [1], "b": [1, 2]}
    assert await stock.letters() == [
        ("a-2", "rejected"),
        ("a-3", "parked"),
        ("a-4", "parked"),
        ("a-5", "parked"),
    ]

    # When it is redriven too early, it stays as it is
    await stock.app.good("dlq", "redrive", "stock", "--all")
    await stock.app.good("worker", "start", "--until-empty")
    assert stock.effects() == {"a": [1], "b": [1, 2]}
    assert sorted(await stock.letters()) == [("a-2", "rejected"), *((f"a-{number}", "parked") for number in (3, 4, 5))]

    # When the cause is mended and it is redriven while newer events wait
    stock.app.write("mended", "")
    await stock.publish([("a", 6, "")])
    await stock.app.good("dlq", "redrive", "stock", "--all")
    await stock.publish([("a", 7, "")])
    await stock.app.good("worker", "start", "--until-empty")

    # Then the old ones come first; what came before them was put behind them, and is redriven next
    assert stock.effects() == {"a": [1, 2, 3, 4, 5], "b": [1, 2]}
    await stock.app.good("dlq", "redrive", "stock", "--all")
    await stock.publish([("a", 8, "")])
    await stock.app.good("worker", "start", "--until-empty")
    assert stock.effects() == {"a": [1, 2, 3, 4, 5, 6, 7, 8], "b": [1, 2]}
    assert stock.dead() == []
    assert stock.app.count("stock", "pipeline_line") == 0


async def test_a_discarded_letter_frees_its_key(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a parked key
    stock = open_stock(vhost, tmp_path, on_dead="park")
    await stock.app.apply()
    await stock.publish([("a", 1, "always"), ("a", 2, "")])
    await stock.app.good("worker", "start", "--until-empty")
    assert stock.effects() == {}

    # When the letter it waits for is discarded, and the rest is redriven
    await stock.app.good("dlq", "discard", "stock", "--id", "a-1", "--yes")
    await stock.app.good("dlq", "redrive", "stock", "--all")
    await stock.publish([("a", 3, "")])
    await stock.app.good("worker", "start", "--until-empty")

    # Then the key goes on
    assert stock.effects() == {"a": [2, 3]}
    assert stock.dead() == []
