"""RabbitMQ from the distribution's packages, without root. In: the machine's apt sources. Out: a folder with
programs.

The packages are downloaded and verified by apt, unpacked below the state folder, tried, and renamed into
place last: a folder of the final name is always complete. Nothing is installed, and apt's own lists and
caches are not written.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.broker import installation
from pipeline.broker.installation import Installation
from pipeline.errors import BrokerError

PACKAGE = "rabbitmq-server"
TIMEOUT = 600.0  # s for any one command: a slow line may take minutes for 35 MB
PLANNED = re.compile(r"^Inst ([a-z0-9][a-z0-9+.-]+)", re.MULTILINE)
MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)

# An empty dpkg status makes apt name every package needed, also where a part of Erlang is installed already.
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

# Debian's start script of Erlang insists on /usr/lib/erlang; this finds its root from its own place, so that
# the folder works wherever it is moved.
FIXED_ROOT = re.compile(r"\bROOTDIR=(['\"]?)/usr/lib/erlang\1\s*$", re.MULTILINE)
OWN_ROOT = 'ROOTDIR="$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)"'


class UnpackError(BrokerError):
    """The packages could not be had or do not run here."""


def unpack(packages: Path, say: Callable[[str], None]) -> Installation:
    """RabbitMQ and Erlang unpacked in `packages`; done once, safe to call from two places at once.

    Raises: UnpackError when there is no apt, no such package, or the programs do not run.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnpackError("this machine has no apt-get to get RabbitMQ with")
    try:
        packages.parent.mkdir(parents=True, exist_ok=True)
        with _locked(packages.parent / "packages.lock"):
            found = installation.unpacked(packages)
            if found is None:
                _replace(packages, say)
                found = installation.unpacked(packages)
    except OSError as error:
        raise UnpackError(f"{packages} can't be written: {error}") from error
    if found is None or not found.is_recent_enough:
        version = f"RabbitMQ {found.version}" if found else "no RabbitMQ"
        raise UnpackError(f"the distribution's packages hold {version}; 3.10 or newer is needed")
    return found


def _replace(packages: Path, say: Callable[[str], None]) -> None:
    for left_over in packages.parent.glob(".packages-*"):  # of an attempt that was interrupted
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=".packages-", dir=packages.parent) as draft:
        _fill(Path(draft), say)
        shutil.rmtree(packages, ignore_errors=True)
        (Path(draft) / "root").rename(packages)


def _fill(draft: Path, say: Callable[[str], None]) -> None:
    say("Downloading the distribution's RabbitMQ and Erlang packages (about 35 MB, no root needed) …")
    root = draft / "root"
    try:
        apt = _Apt(draft, own_lists=False)
        planned = apt.plan()
        _download(apt, planned, root)
    except UnpackError:  # no lists on this machine (a container), or so old that the files are gone
        say("The machine's package lists are missing or old; reading fresh ones (kept out of the system) …")
        apt = _Apt(draft, own_lists=True)
        planned = apt.plan()
        _download(apt, planned, root)
    erl = root / "usr/lib/erlang/bin/erl"
    erl.write_text(FIXED_ROOT.sub(lambda _: OWN_ROOT, erl.read_text()))
    if _missing_libraries(root):
        apt.fetch(sorted(name for name in planned if name.startswith("lib") and not _is_installed(name)), root)
    _try_out(root)


def _download(apt: _Apt, planned: list[str], root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    apt.fetch([name for name in planned if name == PACKAGE or name.startswith("erlang-")], root)


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

    def plan(self) -> list[str]:
        """Names of all packages an empty machine would need for RabbitMQ."""
        names = PLANNED.findall(self._run("install", "--simulate", "--no-install-recommends", PACKAGE))
        if PACKAGE not in names:
            raise UnpackError(f"apt knows no installable package {PACKAGE}")
        return names

    def fetch(self, names: list[str], root: Path) -> None:
        """Download the packages (apt checks their signatures' hashes) and unpack them into `root`."""
        archives = self._folder / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir()
        self._run("download", *names, cwd=archives)
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(root)])

    def _run(self, *arguments: str, check: bool = True, cwd: Path | None = None) -> str:
        return _run(["apt-get", f"--config-file={self._folder / 'apt.conf'}", *arguments], check=check, cwd=cwd)


def _missing_libraries(root: Path) -> list[str]:
    """Shared libraries that neither the machine nor `root` has and a program in `root` wants."""
    folders = ":".join(str(folder) for folder in installation.library_folders(root))
    programs = [*root.glob("usr/lib/erlang/erts-*/bin/*"), *root.glob("usr/lib/erlang/lib/*/priv/**/*.so")]
    env = {**os.environ, "LD_LIBRARY_PATH": folders}
    return MISSING.findall(_run(["ldd", *(str(program) for program in programs)], check=False, env=env))


def _is_installed(name: str) -> bool:
    status = _run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", name], check=False)
    return "installed" in status.split()


def _try_out(root: Path) -> None:
    """Run Erlang with its cryptography once: fails here, in a clear place, if the folder can't run programs."""
    if missing := _missing_libraries(root):
        raise UnpackError(f"shared libraries are missing: {', '.join(sorted(set(missing)))}")
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(root),
        "LD_LIBRARY_PATH": ":".join(str(folder) for folder in installation.library_folders(root)),
    }
    check = "ok = crypto:start(), halt(0)."
    _run([str(root / "usr/lib/erlang/bin/erl"), "-noinput", "-boot", "start_clean", "-eval", check], env=env)


def _run(command: list[str], check: bool = True, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
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
