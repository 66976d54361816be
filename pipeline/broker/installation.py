"""Which RabbitMQ programs can be run here. In: the usual places. Out: an `Installation`, or None."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 10)  # quorum queues with a TTL and at-least-once dead-lettering: the retry ladder stands on both
HOME_NAME = re.compile(r"rabbitmq_server-(\d+)\.(\d+)\.(\S+)$")


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs of one RabbitMQ and of the Erlang it runs on."""

    server: Path  # the start script itself: the wrapper in /usr/sbin would switch to another user
    erlang_bin: Path  # folder of erl and epmd
    version: str
    libraries: tuple[Path, ...] = ()  # folders of shared libraries the system does not have

    @property
    def is_recent_enough(self) -> bool:
        """Whether it has what the retry ladder needs."""
        major, minor, *_ = (int(number) for number in re.findall(r"\d+", self.version))
        return (major, minor) >= OLDEST


def find(packages: Path) -> Installation | None:
    """RabbitMQ as installed on the machine, else as unpacked in `packages`; None when neither can be used."""
    if not Path("/proc/self").exists():
        return None  # a private node is watched through /proc: Linux only
    candidates = (on_machine(), unpacked(packages))
    return next((found for found in candidates if found and found.is_recent_enough), None)


def on_machine() -> Installation | None:
    """The newest RabbitMQ installed on this machine."""
    homes = list(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    if in_path := shutil.which("rabbitmq-server"):
        homes.append(Path(in_path).resolve().parents[1])  # a generic-unix archive: <home>/sbin/rabbitmq-server
    erl = shutil.which("erl") or "/usr/lib/erlang/bin/erl"
    return _newest(homes, Path(erl).resolve().parent)


def unpacked(packages: Path) -> Installation | None:
    """The RabbitMQ whose packages were unpacked below `packages`."""
    homes = (packages / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    return _newest(homes, packages / "usr/lib/erlang/bin", library_folders(packages))


def library_folders(packages: Path) -> tuple[Path, ...]:
    """Folders of shared libraries below `packages`, absolute."""
    libraries = (*packages.glob("usr/lib/*-linux-*/lib*.so*"), *packages.glob("lib/*-linux-*/lib*.so*"))
    return tuple(sorted({library.parent.absolute() for library in libraries}))


def _newest(homes: Iterable[Path], erlang_bin: Path, libraries: tuple[Path, ...] = ()) -> Installation | None:
    if not all((erlang_bin / program).exists() for program in ("erl", "epmd")):
        return None
    found = [
        (int(name[1]), int(name[2]), home)
        for home in homes
        if (name := HOME_NAME.search(home.name)) and (home / "sbin/rabbitmq-server").exists()
    ]
    if not found:
        return None
    home = max(found)[2].absolute()
    version = home.name.partition("-")[2]
    return Installation(home / "sbin/rabbitmq-server", erlang_bin.absolute(), version, libraries)
