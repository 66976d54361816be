"""The boxes that are somebody else's programs: PostgreSQL, Redis, RabbitMQ, haproxy. In: programs, ports. Out: boxes.

Each listens on loopback and asks for a random password.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from pipeline.broker.address import LOOPBACK, write_private
from pipeline.broker.installation import Installation
from pipeline.broker.node import Node
from pipeline.broker.programs import Programs
from pipeline.errors import BrokerError
from scripts.up import ask
from scripts.up.box import Account, BrokerBox, ProcessBox
from scripts.up.place import PROJECT, Place, readable_by_others

USER = "pipeline"
HAPROXY_CONFIGURATION = PROJECT / "deploy" / "haproxy" / "haproxy.cfg"
INITDB_DEADLINE = 120.0  # s

POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "log_destination": "stderr",
    "logging_collector": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",  # in its folder: elsewhere a crash leaves files behind
}
# A title of its own would be written over its environment, and by that we know it again.
REDIS_SETTINGS = """\
bind {host}
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
maxmemory 64mb
maxmemory-policy allkeys-lru
set-proc-title no
"""


def postgres_url(place: Place, name: str, port: int) -> str:
    """The address of a PostgreSQL box, with its password; kept as the secret `<name>_url`."""
    url = f"postgresql://{USER}:{quote(place.secret(f'{name}_password'))}@{LOOPBACK}:{port}/postgres"
    return place.secret(f"{name}_url", url)


def postgres(place: Place, name: str, port: int, programs: Programs) -> ProcessBox:
    """A PostgreSQL of its own. It refuses to run as root, and runs as `nobody` then."""
    account = nobody()
    folder = readable_by_others(place, name) if account else place.box(name)
    programs = programs if _can_run(programs, account) else _copied(programs, folder / "programs")
    url = postgres_url(place, name, port)
    settings = {**POSTGRES_SETTINGS, "port": port, "unix_socket_directories": folder / "run"}
    options = [f"--{key}={value}" for key, value in settings.items()]
    return ProcessBox(
        place,
        name,
        (programs.path("postgres"), "-D", str(folder / "data"), *options),
        programs.environment(),
        ready=lambda: ask.postgres(url),
        cwd=folder,
        prepare=lambda: _initialise(place, name, folder, programs, account),
        account=account,
        stop_signal=signal.SIGINT,  # does not wait for clients
        patience=30.0,
    )


def redis_url(place: Place, name: str, port: int) -> str:
    """The address of a Redis box, with its password; kept as the secret `<name>_url`."""
    return place.secret(f"{name}_url", f"redis://:{quote(place.secret(f'{name}_password'))}@{LOOPBACK}:{port}/0")


def redis(place: Place, name: str, port: int, programs: Programs, program: str) -> ProcessBox:
    """A Redis (or Valkey) that keeps nothing on disk: it is a cache."""
    folder = place.box(name)
    configuration = folder / "redis.conf"
    password = place.secret(f"{name}_password")
    redis_url(place, name, port)
    words = REDIS_SETTINGS.format(host=LOOPBACK, port=port, password=password, folder=f'"{folder}"')
    return ProcessBox(
        place,
        name,
        (programs.path(program), str(configuration)),
        programs.environment(),
        ready=lambda: ask.redis(port, password),
        cwd=folder,
        prepare=lambda: write_private(configuration, words),
    )


def broker(place: Place, installation: Installation) -> BrokerBox:
    """RabbitMQ, as `pipeline broker start` has it, in this place."""
    return BrokerBox(place, "broker", Node(place.folder, installation))


def haproxy(place: Place, ports: dict[str, int], programs: Programs) -> ProcessBox:
    """The front door, with the configuration that compose.yaml uses too."""

    async def ready() -> bool:
        statistics = await ask.http(ports["haproxy-stats"], "/healthz")
        return statistics == 200 and await ask.http(ports["haproxy"], "/readyz") == 200

    environment = {
        **programs.environment(),
        "HAPROXY_BIND": f"{LOOPBACK}:{ports['haproxy']}",
        "HAPROXY_STATS": str(ports["haproxy-stats"]),
        "GATEWAY_1": f"{LOOPBACK}:{ports['gateway-1']}",
        "GATEWAY_2": f"{LOOPBACK}:{ports['gateway-2']}",
    }
    return ProcessBox(
        place,
        "haproxy",
        (programs.path("haproxy"), "-db", "-f", str(HAPROXY_CONFIGURATION)),
        environment,
        ready=ready,
        cwd=place.box("haproxy"),
        stop_signal=signal.SIGUSR1,
        patience=5.0,
    )


def nobody() -> Account:
    """Whom to run a server as that refuses to be root: `nobody` when we are root, else ourselves."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _can_run(programs: Programs, account: Account) -> bool:
    try:
        command = [programs.path("postgres"), "--version"]
        env = programs.environment()
        done = subprocess.run(command, **account, env=env, cwd="/", capture_output=True, check=False, timeout=60)
    except OSError:
        return False
    return done.returncode == 0


def _copied(programs: Programs, to: Path) -> Programs:
    """A copy of unpacked packages, for an account that can't read them where they are."""
    if programs.root is None:
        raise BrokerError(f"{programs.path('postgres')} can't be run by the user nobody; run `make up` as another user")
    if not to.exists():
        shutil.copytree(programs.root, to, symlinks=True)
    return Programs(to / programs.folder.relative_to(programs.root), to)


def _initialise(place: Place, name: str, folder: Path, programs: Programs, account: Account) -> None:
    """Make the database cluster, the first time; one that was broken off is made anew."""
    own(folder / "run", account)
    data, draft = folder / "data", folder / "data.new"
    if data.exists():
        return
    shutil.rmtree(draft, ignore_errors=True)
    own(draft, account)
    password = draft.with_name("password")
    write_private(password, place.secret(f"{name}_password"))
    if account:
        os.chown(password, account["user"], account["group"])
    options = ("--auth=scram-sha-256", f"--pwfile={password}", f"--username={USER}", "--encoding=UTF8", "--no-sync")
    try:
        done = subprocess.run(
            [programs.path("initdb"), "-D", str(draft / "data"), *options, "--locale=C.UTF-8"],
            **account,
            env=programs.environment(),
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=INITDB_DEADLINE,
        )
    finally:
        password.unlink()
    if done.returncode:
        raise BrokerError(f"initdb failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    (draft / "data").rename(data)
    draft.rmdir()


def own(folder: Path, account: Account) -> None:
    """A folder of the account's own, closed to others."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, account["user"], account["group"])
