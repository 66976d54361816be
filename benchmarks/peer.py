"""Libraries to compare with. In: a place. Out: an environment that has them, and what starts their workers.

Each is set up as its documentation advises for throughput, within what all have in common: durable quorum queue,
persistent messages, publisher confirms, ack after the handler. Where the documentation leaves a choice (processes,
pool, threads), the quickest of those tried here was taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.path import Run
from benchmarks.place import STATE, Place, place
from benchmarks.processes import POLL, RUN_DEADLINE, BenchmarkError, Cost, program, python
from benchmarks.protocol import TALLY_FOLDER, tallied
from pipeline.broker.address import Address

ENVIRONMENT = STATE / "bench-peers"
PACKAGES = (
    "celery>=5.7",
    "dramatiq[rabbitmq]>=2.2",
    "faststream[rabbit]>=0.7.8",
    "taskiq-aio-pika>=0.6.1",
    "uvloop>=0.23",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A library and how it is run: `worker` is the command line behind the interpreter, `ready` what its log says."""

    name: str
    package: str
    module: str
    worker: str
    ready: str
    times: int  # how often the log says so: once a process, with some
    count: int  # events of a run of about 8 s
    tuning: str
    wanted: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


PEERS = (
    Peer(
        "Celery",
        "celery",
        "benchmarks.peers.with_celery",
        "-m celery -A benchmarks.peers.with_celery worker -P solo -l INFO --without-gossip --without-mingle "
        "--without-heartbeat",
        " ready.",
        1,
        8_000,
        "`broker_transport_options={'confirm_publish': True}`, `task_default_queue_type='quorum'`, `task_acks_late`, "
        "`task_ignore_result`, `worker_prefetch_multiplier=128`, rate limits, events, remote control, gossip, mingle "
        "and heartbeat off; `--pool solo`, publishing from 8 threads",
        {"threads": 8},
    ),
    Peer(
        "Dramatiq",
        "dramatiq",
        "benchmarks.peers.with_dramatiq",
        "-m dramatiq benchmarks.peers.with_dramatiq --processes 2 --threads 1",
        "Worker process is ready for action",
        2,
        15_000,
        "`confirm_delivery=True`, quorum queues by overriding the queue arguments, only the Retries middleware, "
        "`dramatiq_queue_prefetch=1000`; `--processes 2 --threads 1`, publishing from 8 threads",
        {"threads": 8},
        {"dramatiq_queue_prefetch": "1000"},
    ),
    Peer(
        "FastStream",
        "faststream",
        "benchmarks.peers.with_faststream",
        "-m benchmarks.peers.with_faststream worker",
        "bench: consuming",
        1,
        25_000,
        "`QueueType.QUORUM`, `persist=True`, `Channel(prefetch_count=1000, publisher_confirms=True)`, "
        "`AckPolicy.NACK_ON_ERROR`, `apply_types=False`, logger off, uvloop, 500 publishes in flight",
    ),
    Peer(
        "taskiq",
        "taskiq-aio-pika",
        "benchmarks.peers.with_taskiq",
        "-m taskiq worker benchmarks.peers.with_taskiq:broker --workers 1 --log-level INFO --max-async-tasks 1000 "
        "--max-prefetch 1000 --no-parse --ack-type when_executed",
        "Listening started",
        1,
        20_000,
        "`QueueType.QUORUM`, `qos=1000`, `--max-async-tasks 1000`, `--max-prefetch 1000`, `--no-parse`, `--ack-type "
        "when_executed`, uvloop, 500 publishes in flight",
    ),
)


def interpreter() -> str:
    """The Python of the peers' environment."""
    return str(ENVIRONMENT / "bin" / "python")


def install(say: Callable[[str], None]) -> None:
    """Make the environment, once. Raises: BenchmarkError when it can't be made."""
    stamp = ENVIRONMENT / ".installed"
    recipe = "\n".join((str(ENVIRONMENT), sys.version, *PACKAGES))
    if stamp.exists() and stamp.read_text() == recipe:
        return
    say(f"installing {', '.join(peer.name for peer in PEERS)} into {ENVIRONMENT}")
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip = [interpreter(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    done = subprocess.run(pip, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"the peers could not be installed:\n{done.stderr[-2000:]}")
    stamp.write_text(recipe)


def versions() -> dict[str, str]:
    """The versions of the peers' packages."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    packages = [peer.package for peer in PEERS]
    told = subprocess.run([interpreter(), "-c", code, *packages], check=True, capture_output=True, text=True).stdout
    return dict(zip(packages, told.split(), strict=True))


def run_peer(broker: Address, peer: Peer, count: int) -> Run:
    """Publish `count` events and consume them at once."""
    with place(broker) as here, ExitStack() as stack:
        counted = here.folder / "tally"
        counted.mkdir()
        environment = _environment(here, peer, counted)
        command = [interpreter(), *peer.worker.split()]
        worker = stack.enter_context(program(command, environment, "worker", here.folder, talks=False))
        worker.wait_for_log(peer.ready, peer.times)
        wanted = {"count": count, **peer.wanted}
        command = python(peer.module, wanted, interpreter())
        publisher = stack.enter_context(program(command, environment, "publisher", here.folder))
        publisher.expect_ready()
        cost, theirs = Cost(broker.pid), Cost(worker.pid)
        publisher.go()
        published = publisher.result()
        deadline = time.monotonic() + RUN_DEADLINE
        while tallied(counted) < count:
            worker.check()
            if time.monotonic() > deadline:
                raise worker.failed(f"handled {tallied(counted):,} of {count:,} events within {RUN_DEADLINE:.0f} s")
            time.sleep(POLL)
        ended = time.monotonic()
        return Run(count, ended - published["began"], published["cpu"], theirs.seconds(), cost.seconds())


def _environment(here: Place, peer: Peer, counted: Path) -> dict[str, str]:
    own = {"BENCH_AMQP_URL": here.amqp_url, TALLY_FOLDER: str(counted), "VIRTUAL_ENV": str(ENVIRONMENT)}
    path = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**here.environment(), **own, **peer.environment, "PATH": path}
