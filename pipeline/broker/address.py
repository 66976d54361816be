"""Where a broker answers. In: `node.json` in the state folder. Out: an `Address`; and back into the file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's addresses. The URLs hold the password: show them through `pipeline.addresses.mask`."""

    amqp_url: str
    management_url: str  # http://user:password@host:port, "" when unknown
    nodename: str = ""
    version: str = ""
    pid: int = 0  # 0 when it does not run, or is not a process of this machine
    prometheus_url: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """The one user of a private broker."""

    user: str
    password: str

    def at(self, scheme: str, port: int) -> str:
        """`scheme://user:password@127.0.0.1:port`."""
        return f"{scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{LOOPBACK}:{port}"


def read_record(path: Path) -> dict[str, object]:
    """What `node.json` remembers; empty when it is missing or was damaged (nothing in it is irreplaceable)."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_address(record: Mapping[str, object]) -> Address | None:
    """The address in `node.json`; None when it holds none."""
    if not record.get("amqp_url"):
        return None
    pid = record.get("pid")
    return Address(
        amqp_url=str(record["amqp_url"]),
        management_url=str(record.get("management_url", "")),
        nodename=str(record.get("nodename", "")),
        version=str(record.get("version", "")),
        pid=pid if isinstance(pid, int) else 0,
        prometheus_url=str(record.get("prometheus_url", "")),
    )


def write_record(path: Path, address: Address, **more: object) -> None:
    """Replace `node.json` as a whole: a reader sees the old file or the new one, never half of it."""
    write_private(path, json.dumps({**asdict(address), **more}, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write atomically, readable by the owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
