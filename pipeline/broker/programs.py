"""Programs of other servers, without root. In: which (`REDIS`, `HAPROXY`, …). Out: a folder with them, how to run them.

What the machine has goes first; otherwise the distribution's packages are unpacked below the state folder, once, as
RabbitMQ's are. Nothing is installed and no server of the system is started.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.debian import Recipe, UnpackError, run, unpack
from pipeline.broker.installation import library_folders

NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Kit:
    """A server's programs: the package they come in, and where below `/` they are looked for (patterns)."""

    package: str
    what: str  # is downloaded, for a user
    programs: tuple[str, ...]  # the first one is asked for its version
    folders: tuple[str, ...]
    parts: str = "(?!)"  # further packages with parts of it: a pattern that fits their whole names
    version: str = "--version"


@dataclass(frozen=True, slots=True)
class Programs:
    """Where a kit's programs are. `root` is the folder that packages were unpacked in, None when they are installed."""

    folder: Path
    root: Path | None = None

    def path(self, program: str) -> str:
        """The program, to be put into a command line."""
        return str(self.folder / program)

    def environment(self) -> dict[str, str]:
        """For these programs; nothing of the caller's own."""
        libraries = {"LD_LIBRARY_PATH": ":".join(map(str, library_folders(self.root)))} if self.root else {}
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **libraries}


REDIS = Kit(
    "redis-server",
    "Redis packages (about 2 MB, no root needed)",
    ("redis-server",),
    ("usr/bin", "usr/local/bin"),
    parts="redis-tools",
)
VALKEY = Kit(
    "valkey-server",
    "Valkey packages (about 2 MB, no root needed)",
    ("valkey-server",),
    ("usr/bin", "usr/local/bin"),
    parts="valkey-tools",
)
HAPROXY = Kit("haproxy", "HAProxy packages (about 2 MB, no root needed)", ("haproxy",), ("usr/sbin",), version="-v")
POSTGRESQL = Kit(
    "postgresql",  # depends on the distribution's version of it: postgresql-15, postgresql-client-15
    "PostgreSQL packages (about 20 MB, no root needed)",
    ("postgres", "initdb"),
    ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin"),
    parts=r"postgresql-(client-)?\d+",
)


def programs(kit: Kit, state_dir: Path, say: Callable[[str], None]) -> Programs:
    """The kit's programs: the machine's, else the distribution's packages, unpacked once in `state_dir`.

    Safe to call from two places at once. Raises: UnpackError when neither can be had.
    """
    return on_machine(kit) or _from_packages(kit, state_dir.absolute() / kit.package, say)


def on_machine(kit: Kit) -> Programs | None:
    """The newest one that is installed."""
    if (found := _newest(kit, Path("/"))) is not None:
        return Programs(found)
    places = [shutil.which(program) for program in kit.programs]
    return Programs(Path(places[0]).parent) if places[0] is not None and None not in places else None


def _from_packages(kit: Kit, folder: Path, say: Callable[[str], None]) -> Programs:
    recipe = Recipe(
        kit.package,
        kit.what,
        belongs=lambda name: re.fullmatch(kit.parts, name) is not None,
        programs=lambda root: [path / program for path in _folders(kit, root) for program in kit.programs],
        adapt=lambda root: None,
        try_out=lambda root: _try_out(kit, root),
    )
    unpack(folder, recipe, say, lambda: _newest(kit, folder) is not None)
    found = _newest(kit, folder)
    assert found is not None  # it was tried out
    return Programs(found, folder)


def _try_out(kit: Kit, root: Path) -> None:
    found = _newest(kit, root)
    if found is None:
        raise UnpackError(f"the package {kit.package} has no {' or '.join(kit.programs)}")
    unpacked = Programs(found, root)
    run([unpacked.path(kit.programs[0]), kit.version], env=unpacked.environment())


def _newest(kit: Kit, root: Path) -> Path | None:
    found = _folders(kit, root)
    return max(found, key=_numbers) if found else None


def _folders(kit: Kit, root: Path) -> list[Path]:
    places: Iterable[Path] = (path for pattern in kit.folders for path in root.glob(pattern))
    return [path for path in places if all((path / program).exists() for program in kit.programs)]


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in NUMBERS.findall(str(path))]
