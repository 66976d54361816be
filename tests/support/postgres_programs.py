"""Which PostgreSQL programs can be run here. In: the usual places, else the distribution's packages. Out: `Programs`.

The server refuses to run as root. Where the tests run as root it runs as `nobody`, who must be able to read it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pipeline.broker.debian import Recipe, run, unpack
from pipeline.broker.installation import library_folders

PACKAGE = "postgresql"  # depends on the distribution's version of it: postgresql-15, postgresql-client-15
PARTS = re.compile(r"postgresql-(client-)?\d+$")
NEEDED = ("initdb", "postgres")
VERSION = re.compile(r"/(\d+)/bin$")


class Account(TypedDict, total=False):
    """Whom `subprocess` is to run a program as; empty for the tests' own user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder of a PostgreSQL's programs, and how to run them."""

    folder: Path
    root: Path | None = None  # of the packages, when they are unpacked and not installed

    def environment(self) -> dict[str, str]:
        """For a program of this PostgreSQL; nothing of the caller's own."""
        libraries = {"LD_LIBRARY_PATH": ":".join(map(str, library_folders(self.root)))} if self.root else {}
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **libraries}

    def run_as(self, account: Account) -> bool:
        """Whether the account can run them."""
        command = [str(self.folder / "postgres"), "--version"]
        try:
            done = subprocess.run(
                command, **account, env=self.environment(), cwd="/", capture_output=True, check=False, timeout=60
            )
        except OSError:
            return False
        return done.returncode == 0

    def copied(self, to: Path) -> Programs:
        """A copy of the unpacked packages, for an account that can't read them where they are."""
        assert self.root is not None
        shutil.copytree(self.root, to, symlinks=True)
        return Programs(to / self.folder.relative_to(self.root), to)


def account() -> Account:
    """Whom to run a server as: `nobody` when we are root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def find(state_dir: Path) -> Programs:
    """PostgreSQL as installed on the machine, else unpacked below `state_dir`, once.

    Raises: UnpackError when there is neither.
    """
    return on_machine() or unpacked(state_dir.absolute() / "postgresql")


def on_machine() -> Programs | None:
    """The newest PostgreSQL installed on this machine."""
    return _newest([*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]) or _in_path()


def unpacked(folder: Path) -> Programs:
    """PostgreSQL from the distribution's packages, unpacked in `folder`. Raises: UnpackError."""
    recipe = Recipe(
        PACKAGE,
        "PostgreSQL packages (about 20 MB, no root needed)",
        belongs=lambda name: PARTS.match(name) is not None,
        programs=lambda root: [path for name in NEEDED for path in root.glob(f"usr/lib/postgresql/*/bin/{name}")],
        adapt=lambda root: None,
        try_out=_try_out,
    )
    unpack(folder, recipe, print, lambda: _unpacked(folder) is not None)
    found = _unpacked(folder)
    assert found is not None  # it was tried out
    return found


def _unpacked(folder: Path) -> Programs | None:
    return _newest([*folder.glob("usr/lib/postgresql/*/bin")], folder)


def _newest(folders: list[Path], root: Path | None = None) -> Programs | None:
    found = [folder for folder in folders if all((folder / name).exists() for name in NEEDED)]
    if not found:
        return None
    return Programs(max(found, key=lambda folder: int((VERSION.search(str(folder)) or [0, 0])[1])), root)


def _in_path() -> Programs | None:
    places = [shutil.which(name) for name in NEEDED]
    return None if places[1] is None or None in places else Programs(Path(places[1]).resolve().parent)


def _try_out(root: Path) -> None:
    found = _unpacked(root)
    assert found is not None
    run([str(found.folder / "postgres"), "--version"], env=found.environment())
