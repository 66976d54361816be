"""How far a replay has come, on disk. In: a replay's arguments. Out: its `Checkpoint`, its own while it runs.

The same arguments are the same replay until it is finished: interrupted and started again, it goes on under its id. A
checkpoint is written to a temporary file and renamed, so that there is always a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError

FOLDER = "replays"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A replay that is not finished. `since` and `until` are resolved; `next` is the first offset not dealt with.

    `end` is the last offset of it; `began` whether `next` says something already.
    """

    id: str
    arguments: Mapping[str, Any]
    since: str | int | None
    until: str | int | None
    end: int | None
    next: int = 0
    began: bool = False
    seen: int = 0
    copied: int = 0

    def bound(self, name: str) -> datetime | int | None:
        """`since` or `until` as it was resolved at the first start."""
        value = getattr(self, name)
        return datetime.fromisoformat(value) if isinstance(value, str) else value

    def after(self, offset: int, seen: int, copied: int) -> Checkpoint:
        """The one when everything up to `offset` is dealt with."""
        return replace(self, next=offset + 1, began=True, seen=self.seen + seen, copied=self.copied + copied)


class CheckpointFile:
    """The place of one replay's checkpoint."""

    def __init__(self, state_dir: Path, subscription: str, arguments: Mapping[str, Any]) -> None:
        text = json.dumps(arguments, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = state_dir / FOLDER / f"{subscription}-{digest}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others from running the same replay. Raises: ConfigurationError when one runs, or there is no place."""
        lock = self.path.with_suffix(".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(f"{lock} can't be written: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError("a replay with the same arguments is running; let it end") from None
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Checkpoint | None:
        """The checkpoint that is there. Raises: ConfigurationError when it can't be read."""
        try:
            return Checkpoint(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"the checkpoint {self.path} can't be read ({error}); without the file the replay begins anew"
            ) from None

    def write(self, checkpoint: Checkpoint) -> None:
        """Keep this, whatever happens next. Raises: ConfigurationError when the disk takes no more."""
        write_whole(self.path, json.dumps(asdict(checkpoint)).encode())

    def remove(self) -> None:
        """It is finished."""
        self.path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file there in one piece, on the disk itself. Raises: ConfigurationError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
