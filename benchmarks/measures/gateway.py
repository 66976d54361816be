"""Events accepted over HTTP: the gateway, the same without its outbox, and a bare FastAPI handler."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass

from benchmarks.bench import Bench, Measure
from benchmarks.payload import EVENT_TYPE
from benchmarks.place import place
from benchmarks.processes import POLL, START_DEADLINE, Cost, Program, program, python
from benchmarks.results import Outcome, Row, Table, bar, ratio, spread
from benchmarks.scale import Scale

CONNECTIONS = 64
BATCH = 100
GATEWAY = ["-m", "pipeline", "gateway", "start", "--insecure", "--max-waiting", "10000000", "--port"]
SERVERS = {
    "gateway": [*GATEWAY],
    "gateway, no line a request (--log-level warning)": [*GATEWAY[:3], "start", "--log-level", "warning", *GATEWAY[4:]],
    "without the outbox: published with confirm": ["-m", "benchmarks.programs.http_peers", "direct"],
    "a bare FastAPI handler: the body read": ["-m", "benchmarks.programs.http_peers", "bare"],
}
OURS, QUIET, DIRECT, BARE = SERVERS


@dataclass(frozen=True, slots=True)
class Posted:
    """One run. Times are milliseconds a request; `server` is its processor seconds an event."""

    rate: float  # events a second
    p50: float
    p99: float
    server: float


def run(bench: Bench, outcome: Outcome) -> None:
    """Each server, one event a request and many."""
    columns = ["what", "events/s", "p50 ms", "p99 ms", "server µs an event"]
    for batch, requests in ((1, bench.scale.posts), (BATCH, bench.scale.posts // 20)):
        runs: dict[str, list[Posted]] = {name: [] for name in SERVERS}
        for number in bench.rounds():
            for name in SERVERS:
                bench.say(f"gateway: {name}, {batch} a request", number)
                runs[name].append(_posted(bench, name, batch, requests))
        title = "One event a request" if batch == 1 else f"{batch} events a request"
        outcome.tables.append(Table(title, columns, [_line(name, found) for name, found in runs.items()]))
        what = "one a request" if batch == 1 else f"{batch} a request"
        rates = {name: [each.rate for each in found] for name, found in runs.items()}
        safety, bare = ratio(rates[OURS], rates[DIRECT]), ratio(rates[OURS], rates[BARE])
        outcome.rows.append(Row(f"gateway, of the same without the outbox, {what}", "", safety.text("{:.2f}")))
        outcome.rows.append(Row(f"gateway, of a bare FastAPI handler, {what}", "", bare.text("{:.2f}")))
        outcome.bars += [
            bar(f"HTTP, {what}", "pipeline gateway", spread(rates[OURS])),
            bar(f"HTTP, {what}", "without the outbox", spread(rates[DIRECT])),
            bar(f"HTTP, {what}", "bare FastAPI", spread(rates[BARE]), ours=False),
        ]
    outcome.notes.append(
        f"{CONNECTIONS} keep-alive connections, each waiting for its answer; the client shares the cores. The gateway "
        "commits each event to SQLite (synchronous=FULL) before its answer, and its relay publishes it meanwhile."
    )


def _posted(bench: Bench, name: str, batch: int, requests: int) -> Posted:
    with place(bench.broker, (), "quorum") as here:
        environment = here.environment() | {"PIPELINE_PRODUCER_DATABASE_URL": f"sqlite+aiosqlite:///{here.folder}/p.db"}
        port = _free_port()
        with program(
            [sys.executable, *SERVERS[name], str(port)], environment, "server", here.folder, talks=False
        ) as server:
            _wait_for(port, server)
            wanted = {"host": "127.0.0.1", "port": port, "path": f"/events/{EVENT_TYPE}", "connections": CONNECTIONS}
            wanted |= {"batch": batch, "requests": requests}
            with program(python("benchmarks.programs.http_load", wanted), environment, "client", here.folder) as client:
                client.expect_ready()
                cost = Cost(server.pid)
                client.go()
                found = client.result()
            seconds = found["ended"] - found["began"]
            return Posted(found["count"] / seconds, found["p50"], found["p99"], cost.seconds() / found["count"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: int = listener.getsockname()[1]
        return found


def _wait_for(port: int, server: Program) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            server.check()
            if time.monotonic() > deadline:
                raise server.failed("does not listen") from None
            time.sleep(POLL)
        else:
            return


def _line(name: str, runs: list[Posted]) -> list[str]:
    return [
        name,
        spread(each.rate for each in runs).text(),
        f"{spread(each.p50 for each in runs).median:.1f}",
        spread(each.p99 for each in runs).text("{:.1f}"),
        f"{spread(each.server * 1e6 for each in runs).median:.0f}",
    ]


def seconds(scale: Scale) -> float:
    """About."""
    return scale.rounds * len(SERVERS) * (scale.posts / 2_000 + scale.posts * BATCH / 20 / 15_000 + 8)


MEASURE = Measure(
    "gateway",
    "Events accepted over HTTP by one gateway process: validated, committed to the outbox, answered 202; beside it the "
    "same without the outbox, and a handler that does nothing.",
    seconds,
    run,
)
