"""The main job through the command line, as `make demo` runs it, with a few hundred orders: the books must balance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.demo import write_feed
from tests.support.application import Application
from tests.support.broker import PROJECT, TestVhost
from tests.support.topologies import until

ORDERS = 600
RUN = "run"


async def test_the_reference_application_accounts_for_every_order(vhost: TestVhost, tmp_path: Path) -> None:
    # Given a feed with every kind of trouble, and the broker as the topology says
    app = Application(vhost, tmp_path, cwd=PROJECT)
    app.environ["PIPELINE_TOPOLOGY"] = "topology"
    feed = tmp_path / "orders.jsonl"
    write_feed(feed, ORDERS, RUN)
    expected = Expected(feed)
    await app.good("topology", "apply")

    # When the feed is published
    published = await app.run("publish", "--file", str(feed))

    # Then the lines that are no events are named by file and line, and all others are confirmed
    assert published.code == 1
    named = [line.split(": ")[0] for line in published.err.splitlines()]
    assert named == [f"{feed}:{number}" for number in expected.bad_lines]
    assert f"{expected.lines:,} events confirmed, {len(expected.bad_lines)} lines refused" in published.out

    # When two worker processes run until nothing is left
    await app.good("worker", "start", "--until-empty", "--processes", "2")

    # Then each subscription's books are exactly what the trouble in the feed makes them
    async def books() -> dict[str, Any] | None:
        done = await app.good("accounts", "--json", "--source", f"/demo/{RUN}")
        accounts = {each["subscription"]: each for each in done.json()["accounts"]}
        # RabbitMQ's own counters are a second or so behind.
        return accounts if accounts["payments"]["retried"] == expected.books["payments"]["retried"] else None

    found = await until(books, "RabbitMQ's counters are as they should be")
    assert found is not None
    for subscription, book in expected.books.items():
        assert {name: found[subscription][name] for name in book} == book, subscription

    # And the dead letters are there, by error
    letters = {each["subscription"]: each for each in (await app.good("dlq", "list", "--json")).json()}
    assert {name: each["count"] for name, each in letters.items()} == expected.dead
    assert letters["payments"]["errors"] == {"pipeline.retry.Reject": 3, "workers.payments.CardDeclined": 2}

    # And the tables hold one row for each event that went through, none of another
    assert app.count("payments", "payment") == expected.books["payments"]["processed"]
    assert app.count("inventory", "reservation") == expected.books["inventory"]["processed"]
    assert app.count("orders", "'order'") == expected.orders
    states = app.rows("orders", "SELECT count(payment), count(reserved) FROM 'order'")
    assert states == [(expected.books["payments"]["processed"], expected.books["inventory"]["processed"])]


class Expected:
    """What a feed must come to, read from its lines."""

    def __init__(self, feed: Path) -> None:
        self.bad_lines: list[int] = []
        orders: dict[int, dict[str, Any]] = {}
        self.lines = 0
        for number, line in enumerate(feed.read_text().splitlines(), 1):
            try:
                data = json.loads(line)["data"]
            except ValueError:
                self.bad_lines.append(number)
                continue
            self.lines += 1
            orders[data["order_id"]] = data
        self.orders = len(orders)
        cards = [order["card"] for order in orders.values()]
        goods = [order["sku"] for order in orders.values()]
        stolen, empty, slow = cards.count("stolen"), cards.count("empty"), cards.count("slow-bank")
        gone, recount = goods.count("discontinued"), goods.count("recount")
        assert all((stolen, empty, slow, gone, recount, self.bad_lines))
        assert self.lines > self.orders  # some orders are there twice
        paid, reserved = self.orders - stolen - empty, self.orders - gone
        self.dead = {"payments": stolen + empty, "inventory": gone, "orders": 0}
        self.books = {
            "payments": self._book(self.orders, paid, 2 * slow + 3 * empty),
            "inventory": self._book(self.orders, reserved, 2 * recount),
            "orders": self._book(self.orders + paid + reserved, self.orders + paid + reserved, 0),
        }

    def _book(self, published: int, processed: int, retried: int) -> dict[str, Any]:
        return {
            "published": published,
            "processed": processed,
            "dead_lettered": published - processed,
            "missing": 0,
            "twice": 0,
            "retried": retried,
            "duplicates": self.lines - self.orders,
            "balances": True,
        }
