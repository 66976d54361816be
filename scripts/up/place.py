"""Where everything of one `up` lies. In: a state folder. Out: folders, secrets, ports and an identity that stay.

A process is recognised by the identity, which a copy of the folder does not share: see `marks`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.address import LOOPBACK, write_private
from pipeline.broker.ports import is_free

PROJECT = Path(__file__).parents[2]
FRONT_DOOR = 8080  # where a new `up` listens when it can; afterwards where it listened last
SOMEWHERE_ELSE = Path("/var/tmp")  # noqa: S108 - a folder of ours alone is made in it


@dataclass(frozen=True, slots=True)
class Place:
    """One `up`: its folder, and the identity its processes carry."""

    folder: Path  # absolute
    identity: str

    def box(self, name: str) -> Path:
        """A box's own folder, made if need be."""
        return private_folder(self.folder / name)

    def secret(self, name: str, value: str | None = None) -> str:
        """A secret kept in a file; `value` is written, without one a missing secret is made up."""
        path = self.secret_file(name)
        if value is not None:
            write_private(path, value + "\n")
        elif not path.exists():
            write_private(path, secrets.token_urlsafe(24) + "\n")
        return path.read_text().strip()

    def secret_file(self, name: str) -> Path:
        """Where the secret is."""
        return private_folder(self.folder / "secrets") / name

    def hold(self, name: str) -> Path:
        """While this file is there, the supervisor does not start the box again."""
        return private_folder(self.folder / "hold") / name

    @property
    def log(self) -> Path:
        """The one log."""
        return self.folder / "log"

    @property
    def status(self) -> Path:
        """What the supervisor says of each box, as JSON."""
        return self.folder / "status.json"

    @property
    def environment(self) -> Path:
        """The `PIPELINE_*` variables of this `up`, as lines for a shell."""
        return self.folder / "env"


def open_place(folder: Path) -> Place:
    """The place in a folder; the first time, its identity is made."""
    folder = private_folder(folder.absolute())
    made_for = f"{folder.stat().st_dev}:{folder.stat().st_ino}"
    path = folder / "identity"
    words = path.read_text().split() if path.exists() else []
    if len(words) != 2 or words[1] != made_for:  # there is none, or it came with a copy of the folder
        words = [secrets.token_hex(8), made_for]
        write_private(path, " ".join(words) + "\n")
    return Place(folder, words[0])


def private_folder(path: Path) -> Path:
    """The folder, made for the owner alone if it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def choose_ports(place: Place, names: list[str], front_door: int | None) -> dict[str, int]:
    """A loopback port for each name: the last one if it is free, so that a bookmark stays good.

    The first name is the front door; `front_door` sets its port, 0 any.
    """
    path = place.folder / "ports.json"
    last: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    if front_door is not None:
        last[names[0]] = front_door
    last.setdefault(names[0], FRONT_DOOR)
    chosen: dict[str, int] = {}
    with ExitStack() as held:  # all are held until all are known, so that no number comes twice
        for name in names:
            port = last.get(name, 0)
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port if port and is_free(port) else 0))
            chosen[name] = int(probe.getsockname()[1])
    write_private(path, json.dumps(chosen, indent=2) + "\n")
    return chosen


def readable_by_others(place: Place, name: str) -> Path:
    """A folder for a box that runs as another user: its own, or, where that user can't come that far, one in /var/tmp.

    A checkout in root's home is such a place.
    """
    folder = place.folder / name
    way = (place.folder, *place.folder.parents)
    place.folder.chmod(0o711)  # may be walked through; what lies in it stays private
    if all(part.stat().st_mode & 0o001 for part in way):
        folder.mkdir(mode=0o711, exist_ok=True)
        return folder
    who = hashlib.sha256(f"{place.folder}{place.identity}".encode()).hexdigest()[:12]
    elsewhere = SOMEWHERE_ELSE / f"pipeline-up-{who}"
    elsewhere.mkdir(mode=0o711, exist_ok=True)
    if elsewhere.stat().st_uid != os.geteuid():
        raise PermissionError(f"{elsewhere} belongs to another user; remove it")
    folder = elsewhere / name
    folder.mkdir(mode=0o711, exist_ok=True)
    return folder
