"""One run over the broker, publisher and consumer at once. In: counts and kinds. Out: `Run`: rate and cost.

The clock runs from the publisher's first call to the moment the last event is done: acked for the lane alone, handled
for a peer, committed for the whole path. Nothing is left out as warm-up.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.application import ROWS
from benchmarks.payload import SIZE, event_id
from benchmarks.place import PREFETCH, Place, place
from benchmarks.processes import RUN_DEADLINE, BenchmarkError, Cost, Program, program, python
from pipeline.broker.address import Address
from tests.support.sql import Sessions

POLL = 0.02  # s between looks into a worker's database


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. Costs are processor seconds of all processes of the kind."""

    count: int
    seconds: float
    publisher: float = 0.0
    consumer: float = 0.0
    broker: float = 0.0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.count / self.seconds

    def microseconds(self) -> tuple[float, float, float]:
        """Processor time an event: publisher, consumer, broker."""
        scale = 1_000_000 / self.count
        return self.publisher * scale, self.consumer * scale, self.broker * scale


def publish(broker: Address, module: str, count: int, event_log: bool = False, /, **wanted: object) -> Run:
    """Publish alone, by one of our programs, into a subscription's queue, and with `event_log` into a stream too."""
    with place(broker, ["billing"], event_log=event_log) as here, _publisher(here, module, count, wanted) as publisher:
        cost = Cost(broker.pid)
        publisher.go()
        report = publisher.result()
        return Run(count, report["ended"] - report["began"], report["cpu"], 0.0, cost.seconds())


def consume(broker: Address, module: str, count: int, **wanted: object) -> Run:
    """Consume alone, by one of our programs, what was published before."""
    with place(broker, ["billing"]) as here:
        fill(here, count)
        arguments = {"queue": "billing", "count": count, "prefetch": PREFETCH, "early": False, **wanted}
        with program(python(module, arguments), here.environment(), "consumer", here.folder) as consumer:
            consumer.expect_ready()
            cost = Cost(broker.pid)
            consumer.go()
            report = consumer.result()
            return Run(count, report["ended"] - report["began"], 0.0, report["cpu"], cost.seconds())


def lane_alone(broker: Address, count: int, queue_type: str = "", size: int = SIZE) -> Run:
    """Publish and consume at once and nothing else: the ceiling. `queue_type` measures a plain queue of that type."""
    subscriptions = [] if queue_type else ["billing"]
    with place(broker, subscriptions, queue_type) as here, ExitStack() as stack:
        queue = queue_type or "billing"
        arguments = {"queue": queue, "count": count, "prefetch": PREFETCH, "early": True}
        command = python("benchmarks.programs.consume", arguments)
        consumer = stack.enter_context(program(command, here.environment(), "consumer", here.folder))
        consumer.expect_ready()
        wanted = {"way": "messages", "size": size}
        publisher = stack.enter_context(_publisher(here, "benchmarks.programs.publish", count, wanted))
        cost = Cost(broker.pid)
        consumer.go()
        publisher.go()
        published, consumed = publisher.result(), consumer.result()
        seconds = consumed["ended"] - published["began"]
        return Run(count, seconds, published["cpu"], consumed["cpu"], cost.seconds())


def whole_path(
    broker: Address,
    count: int,
    subscriptions: tuple[str, ...] = ("billing",),
    processes: int = 1,
    size: int = SIZE,
    database_url: str = "",
    more: str = "",
) -> Run:
    """Events published, queued, decoded, validated, handled, committed and acked, flat out, by a real worker."""
    with (
        place(broker, subscriptions, database_url=database_url, more=more) as here,
        worker(here, processes) as working,
    ):
        with publishing(here, count, size) as publisher:
            cost, own = Cost(broker.pid), Cost(working.pid)
            publisher.go()
            published = publisher.result()
            ended = wait_until_committed(here, count, working)
            run = Run(count, ended - published["began"], published["cpu"], own.seconds(), cost.seconds())
        check_nothing_lost(here, count)
        return run


@contextmanager
def worker(here: Place, processes: int = 1) -> Iterator[Program]:
    """`pipeline worker start` for the place's subscriptions, at work."""
    command = [sys.executable, "-m", "pipeline", "worker", "start", *here.subscriptions]
    command += ["--processes", str(processes), "--json", "--log-level", "info"]
    with program(command, here.environment(), "worker", here.folder, talks=False) as running:
        running.wait_for_log('"event": "working"', processes)
        yield running


@contextmanager
def publishing(here: Place, count: int, size: int = SIZE, way: str = "events", first: int = 0) -> Iterator[Program]:
    """Our publisher, ready to begin."""
    wanted = {"way": way, "size": size, "first": first}
    with _publisher(here, "benchmarks.programs.publish", count, wanted) as publisher:
        yield publisher


def fill(here: Place, count: int, size: int = SIZE) -> None:
    """Put `count` messages into the place's queues."""
    with publishing(here, count, size, "messages") as publisher:
        publisher.go()
        publisher.result()


@contextmanager
def _publisher(here: Place, module: str, count: int, wanted: dict[str, object]) -> Iterator[Program]:
    command = python(module, {"size": SIZE, **wanted, "count": count})
    with program(command, here.environment(), "publisher", here.folder) as publisher:
        publisher.expect_ready()
        yield publisher


class NotAllCommitted(BenchmarkError):
    """Some events were published and not committed in time."""


def wait_until_committed(here: Place, count: int, working: Program, patience: float = RUN_DEADLINE) -> float:
    """The time at which every subscription had committed events 0 to `count`.

    Raises: NotAllCommitted after `patience` seconds, BenchmarkError when the worker ends.
    """
    deadline = time.monotonic() + patience
    last = event_id(count - 1)
    for name in here.subscriptions:
        with closing(_database(here, name)) as database:
            # The newest id is found in microseconds; only when the last is there, all are counted.
            while _last(database) != last or count != _one(database, "SELECT count(*) FROM pipeline_inbox"):
                working.check()
                if time.monotonic() > deadline:
                    raise NotAllCommitted(f"{committed(here):,} of {count:,} events committed after {patience:.0f} s")
                time.sleep(POLL)
    return time.monotonic()


def check_nothing_lost(here: Place, count: int) -> None:
    """Every event has its inbox row and its result, once. Raises: BenchmarkError."""
    if (found := committed(here)) != count:
        raise BenchmarkError(f"of {count:,} events {found:,} have an inbox row and a result in every subscription")


def committed(here: Place) -> int:
    """Events whose inbox row and result are in the database of every subscription."""
    least = []
    for name in here.subscriptions:
        table = "entry" if name == ROWS else "pipeline_result"
        with closing(_database(here, name)) as database:
            least.append(_one(database, "SELECT count(*) FROM pipeline_inbox"))
            least.append(_one(database, f"SELECT count(*) FROM {table}"))  # noqa: S608 - one of two names
    return min(least)


class Database(Protocol):
    """A look into a worker's database."""

    def run(self, sql: str) -> list[tuple[Any, ...]]: ...

    def close(self) -> None: ...


class _Sqlite:
    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def close(self) -> None:
        self._connection.close()


class _Postgres:
    def __init__(self, url: str) -> None:
        self._sessions = Sessions()
        self._session = self._sessions.open(url)

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        return self._session.run(sql)

    def close(self) -> None:
        self._session.close()
        self._sessions.close()


def _database(here: Place, subscription: str) -> Database:
    if here.database_url.startswith("postgresql"):
        return _Postgres(here.database_url)
    return _Sqlite(here.folder / f"{subscription}.db")


def _last(database: Database) -> object:
    return database.run("SELECT max(event_id) FROM pipeline_inbox")[0][0]


def _one(database: Database, query: str) -> int:
    return int(database.run(query)[0][0])
