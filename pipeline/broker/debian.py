"""Programs from the distribution's packages, without root. In: the machine's apt sources. Out: a folder with programs.

The packages are downloaded and verified by apt, unpacked beside the folder, tried, and renamed into place last: a
folder of the final name is always complete. Nothing is installed, and apt's own lists and caches are not written.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.installation import library_folders
from pipeline.errors import BrokerError

TIMEOUT = 600.0  # s for any one command: a slow line may take minutes for 35 MB
PLANNED = re.compile(r"^Inst ([a-z0-9][a-z0-9+.-]+)", re.MULTILINE)
MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)

# An empty dpkg status makes apt name every package needed, also where a part is installed already.
# Hooks of the machine's apt configuration are for changes to the machine, and there are none.
APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Sandbox::User "root";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Acquire::Languages "none";
Acquire::Retries "3";
"""
OWN_LISTS = 'Dir::State::lists "{folder}/lists";\n'


class UnpackError(BrokerError):
    """The packages could not be had or do not run here."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one package becomes programs that run from a folder."""

    package: str
    what: str  # is downloaded, for a user: "RabbitMQ and Erlang packages (about 35 MB …)"
    belongs: Callable[[str], bool]  # whether a package it depends on is a part of it
    programs: Callable[[Path], Sequence[Path]]  # programs and modules that must find their shared libraries
    adapt: Callable[[Path], None]  # what must be changed in the folder
    try_out: Callable[[Path], None]  # raises when the programs don't run


def unpack(folder: Path, recipe: Recipe, say: Callable[[str], None], complete: Callable[[], bool]) -> None:
    """Make sure that `folder` is `complete`; safe to call from two places at once.

    Raises: UnpackError when there is no apt, no such package, or the programs do not run.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnpackError(f"this machine has no apt-get to get {recipe.package} with")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f"{folder.name}.lock"):
            if not complete():
                _replace(folder, recipe, say)
    except OSError as error:
        raise UnpackError(f"{folder} can't be written: {error}") from error


def _replace(folder: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    prefix = f".{folder.name}-"
    for left_over in folder.parent.glob(f"{prefix}*"):  # of an attempt that was interrupted
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as draft:
        _fill(Path(draft), recipe, say)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(draft) / "root").rename(folder)


def _fill(draft: Path, recipe: Recipe, say: Callable[[str], None]) -> None:
    say(f"Downloading the distribution's {recipe.what} …")
    root = draft / "root"
    try:
        apt = _Apt(draft, own_lists=False)
        planned = apt.plan(recipe.package)
        _download(apt, recipe, planned, root)
    except UnpackError:  # no lists on this machine (a container), or so old that the files are gone
        say("The machine's package lists are missing or old; reading fresh ones (kept out of the system) …")
        apt = _Apt(draft, own_lists=True)
        planned = apt.plan(recipe.package)
        _download(apt, recipe, planned, root)
    recipe.adapt(root)
    if missing_libraries(root, recipe.programs(root)):
        # The compiler for long queries is 100 MB, and asked for only when one is run.
        libraries = (name for name in planned if name.startswith("lib") and not name.startswith("libllvm"))
        apt.fetch(sorted(name for name in libraries if not _is_installed(name)), root)
    if missing := missing_libraries(root, recipe.programs(root)):
        raise UnpackError(f"shared libraries are missing: {', '.join(sorted(set(missing)))}")
    recipe.try_out(root)


def _download(apt: _Apt, recipe: Recipe, planned: list[str], root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    apt.fetch([name for name in planned if name == recipe.package or recipe.belongs(name)], root)


class _Apt:
    """apt with a configuration of its own, so that the machine's state is neither needed nor changed."""

    def __init__(self, draft: Path, own_lists: bool) -> None:
        self._folder = draft / "apt"
        for sub in ("lists/partial", "cache/archives/partial"):
            (self._folder / sub).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        conf = APT_CONF + (OWN_LISTS if own_lists else "")
        (self._folder / "apt.conf").write_text(conf.format(folder=self._folder))
        if own_lists:
            # One of several sources may be out of order without harm: whether the lists are enough shows in
            # plan().
            self._run("update", check=False)

    def plan(self, package: str) -> list[str]:
        """Names of all packages an empty machine would need for it."""
        names = PLANNED.findall(self._run("install", "--simulate", "--no-install-recommends", package))
        if package not in names:
            raise UnpackError(f"apt knows no installable package {package}")
        return names

    def fetch(self, names: list[str], root: Path) -> None:
        """Download the packages (apt checks their signatures' hashes) and unpack them into `root`."""
        archives = self._folder / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir()
        self._run("download", *names, cwd=archives)
        for archive in sorted(archives.glob("*.deb")):
            run(["dpkg-deb", "--extract", str(archive), str(root)])

    def _run(self, *arguments: str, check: bool = True, cwd: Path | None = None) -> str:
        return run(["apt-get", f"--config-file={self._folder / 'apt.conf'}", *arguments], check=check, cwd=cwd)


def missing_libraries(root: Path, programs: Sequence[Path]) -> list[str]:
    """Shared libraries that neither the machine nor `root` has and a program wants."""
    folders = ":".join(str(folder) for folder in library_folders(root))
    env = {**os.environ, "LD_LIBRARY_PATH": folders}
    return MISSING.findall(run(["ldd", *(str(program) for program in programs)], check=False, env=env))


def _is_installed(name: str) -> bool:
    status = run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", name], check=False)
    return "installed" in status.split()


def run(command: list[str], check: bool = True, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command.

    Raises: UnpackError with the command's own last words.
    """
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnpackError(f"{command[0]} failed: {error}") from error
    if check and done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-500:]
        raise UnpackError(f"{Path(command[0]).name} {' '.join(command[2:4])} failed: {words}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
