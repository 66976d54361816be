"""One log of all boxes. In: what each box writes into a file of its own. Out: `log`, the box's name before each line.

Files and not pipes: a box goes on writing when the supervisor is killed.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

POLL = 0.2  # s
LARGE = 32 * 1024 * 1024  # bytes; then the log is put aside (one is kept), or a box's file emptied
WIDTH = 16  # columns of a box's name
READ = 256 * 1024  # bytes at once


class Journal:
    """The log, and the files it is made from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)
        self._tails: list[tuple[str, Tail]] = []
        self._following: asyncio.Task[None] | None = None

    def say(self, box: str, words: str) -> None:
        """One line, behind what the boxes wrote before it."""
        self._catch_up()
        self._write(box, words)

    def follow(self, box: str, path: Path) -> None:
        """From now on, what is written into the file comes into the log."""
        self._tails.append((box, Tail(path)))
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Take in what was written last, and end."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._catch_up()
        self._file.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            self._catch_up()

    def _catch_up(self) -> None:
        for box, tail in self._tails:
            for line in tail.lines():
                self._write(box, line)

    def _write(self, box: str, words: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        self._file.write(f"{now}Z {box:<{WIDTH}} | {words}\n")
        self._file.flush()
        if self._file.tell() > LARGE:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = _open(self._path)


def _open(path: Path) -> TextIO:
    """To add to it; for the owner's eyes."""
    return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8", errors="replace")


class Tail:
    """What comes into a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size if path.exists() else 0
        self._rest = b""  # of a line that is not whole yet

    def lines(self) -> list[str]:
        """The lines that came since the last call."""
        size = self._path.stat().st_size if self._path.exists() else 0
        self._place = min(self._place, size)  # it was emptied, or begun anew
        if self._place == size:
            return []
        with self._path.open("rb") as file:
            file.seek(self._place)
            read = file.read(READ)
        self._place += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        if len(self._rest) > READ:
            lines, self._rest = [*lines, self._rest], b""
        if self._place > LARGE:
            os.truncate(self._path, 0)  # it is written in append mode: the next line comes first
            self._place = 0
        return [line.decode(errors="replace").rstrip() for line in lines]
