"""How cost grows: with processes, subscriptions, body size, queue type, database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import path
from benchmarks.application import SUBSCRIPTIONS
from benchmarks.bench import COLUMNS, Bench, Measure, line
from benchmarks.place import PLAIN_QUEUES, STATE
from benchmarks.results import Outcome, Table
from benchmarks.scale import Scale
from tests.support.postgres import Databases, Server
from tests.support.postgres_programs import find

PROCESSES = (1, 2, 4)
FAN_OUT = (1, 2, 4)
SIZES = {"250 B": 250, "4 KB": 4_096, "64 KB": 65_536}
LEAST = 200  # events of a run, however large they are


def run(bench: Bench, outcome: Outcome) -> None:
    """Every case once a round."""
    with _postgres() as databases:
        _measure(bench, outcome, databases)


def _measure(bench: Bench, outcome: Outcome, databases: Databases) -> None:
    cases = _cases(bench)
    cases["database", "PostgreSQL"] = partial(_on_postgres, bench, databases)
    runs: dict[tuple[str, str], list[path.Run]] = {case: [] for case in cases}
    for number in bench.rounds():
        for case, measured in cases.items():
            bench.say(f"growth: {', '.join(case)}", number)
            runs[case].append(measured())
    for title in dict.fromkeys(title for title, _ in cases):
        lines = [line(what, every) for (group, what), every in runs.items() if group == title]
        if title == "database":
            lines.insert(0, line("SQLite", runs["worker processes", "1"]))
        outcome.tables.append(Table(title, COLUMNS, lines))
    outcome.notes += [
        "Worker processes share cores and one database; more of them gain something only where cores are free.",
        "With several subscriptions an event counts once it is committed in all of them.",
        "PostgreSQL runs on the same cores, with fsync on; its processor time is in no column.",
    ]


def _cases(bench: Bench) -> dict[tuple[str, str], Callable[[], path.Run]]:
    broker, scale = bench.broker, bench.scale
    whole, lane, many = path.whole_path, path.lane_alone, scale.growth
    cases: dict[tuple[str, str], Callable[[], path.Run]] = {}
    for number in PROCESSES:
        cases["worker processes", str(number)] = partial(whole, broker, many, processes=number)
    for number in FAN_OUT:
        cases["subscriptions of one event", str(number)] = partial(
            whole, broker, many // number, SUBSCRIPTIONS[:number]
        )
    for name, size in SIZES.items():
        count = max(LEAST, min(many, scale.growth_bytes // size))
        cases["bytes of a body", name] = partial(whole, broker, count, size=size)
    for kind in PLAIN_QUEUES:
        cases["queue type, the lane alone", kind] = partial(lane, broker, many, kind)
    return cases


@contextmanager
def _postgres() -> Iterator[Databases]:
    """Databases in a private PostgreSQL, set up as production would have it."""
    server = Server(find(STATE), durable=True)
    try:
        server.start()
        databases = Databases(server)
        yield databases
        databases.close()
    finally:
        server.remove()


def _on_postgres(bench: Bench, databases: Databases) -> path.Run:
    with databases.database() as made:
        return path.whole_path(bench.broker, bench.scale.growth, database_url=made.url)


def seconds(scale: Scale) -> float:
    """About."""
    runs = len(PROCESSES) + len(FAN_OUT) + len(SIZES) + len(PLAIN_QUEUES) + 1
    return scale.rounds * runs * (scale.growth / 13_000 + 5)


MEASURE = Measure(
    "growth",
    "The whole path as above, with one thing changed; queue types are compared with the lane alone, as a subscription "
    "always has a quorum queue.",
    seconds,
    run,
)
