"""What was measured on. In: the machine. Out: words for the report; no names or paths of this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.place import PROJECT
from pipeline.broker.address import Address

LIBRARIES = ("aio-pika", "aiormq", "uvloop", "pydantic", "SQLAlchemy", "sqlmodel", "aiosqlite")


def taken_on(broker: Address, peers: Mapping[str, str]) -> dict[str, str]:
    """When and on what, as words by name. `peers` are the versions of other libraries."""
    memory = psutil.virtual_memory().total / 2**30
    own = version("event-pipeline")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GB",
        "system": " ".join((platform.system(), *platform.release().split(".")[:2])),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "RabbitMQ": broker.version or "unknown (PIPELINE_AMQP_URL)",
        "event-pipeline": f"{own}{_commit()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "peers": ", ".join(f"{name} {number}" for name, number in peers.items()),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit, for who wants to measure the same again; nothing outside a clone."""
    head = PROJECT / ".git" / "HEAD"
    try:
        said = head.read_text().strip()
        name = (PROJECT / ".git" / said[5:]).read_text().strip() if said.startswith("ref: ") else said
    except OSError:
        return ""
    return f", commit {name[:12]}"
