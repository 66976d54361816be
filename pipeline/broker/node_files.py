"""The files and environment a private node starts with. In: folder, name, ports, login. Out: files and
variables.

Everything listens on 127.0.0.1. The only user is ours; there is no `guest`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path

from pipeline.broker.address import LOOPBACK, Login, write_private
from pipeline.broker.installation import Installation
from pipeline.broker.ports import Ports

PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_consistent_hash_exchange")
MEGABYTE = 1024 * 1024
MEMORY_SHARE = 0.4  # of the machine's memory, RabbitMQ's own default …
MEMORY_LIMIT = 2048 * MEGABYTE  # … but a development node need not take more than this
WAL_SIZE = 64 * MEGABYTE  # the default of 512 MB costs as much memory per node
# What a queue refused while it changed its leader, its retry queue sends again after this time; RabbitMQ's default is
# 3 minutes, for all retries that then wait (docs/decisions/0017-cluster.md). rabbitmq.conf has no name for it.
RESEND_MS = 5_000
ADVANCED = f"[{{rabbit, [{{dead_letter_worker_publisher_confirm_timeout, {RESEND_MS}}}]}}].\n"


def write_files(folder: Path, ports: Ports, login: Login) -> None:
    """Write configuration, plugin list and definitions into the node's folder, readable by the owner only."""
    write_private(folder / "enabled_plugins", f"[{','.join(PLUGINS)}].\n")
    write_private(folder / "advanced.config", ADVANCED)
    write_private(folder / "definitions.json", json.dumps(_definitions(login), indent=2) + "\n")
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{ports.amqp}",
        "management.tcp.ip": LOOPBACK,
        "management.tcp.port": ports.management,
        "prometheus.tcp.ip": LOOPBACK,
        "prometheus.tcp.port": ports.prometheus,
        "load_definitions": folder / "definitions.json",
        "vm_memory_high_watermark.absolute": min(MEMORY_LIMIT, int(_physical_memory() * MEMORY_SHARE)),
        "disk_free_limit.absolute": "50MB",
        "raft.wal_max_size_bytes": WAL_SIZE,
        "collect_statistics_interval": 1000,  # ms: what the management API says is at most this old
        "log.console": "false",
        "log.file.level": "info",
        "log.connection.level": "warning",
        "log.file.rotation.size": 10 * MEGABYTE,
        "log.file.rotation.count": 3,
    }
    write_private(folder / "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in settings.items()))


def environment(folder: Path, nodename: str, ports: Ports, installation: Installation) -> dict[str, str]:
    """The whole environment of node and port mapper: nothing of the caller's leaks in, no file of /etc is
    read.
    """
    env = {
        "HOME": str(folder),  # holds the Erlang cookie
        "PATH": f"{installation.erlang_bin}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "RABBITMQ_NODENAME": nodename,
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        # Makes the start script exec the server instead of staying behind as its parent …
        "RABBITMQ_ALLOW_INPUT": "1",
        # … and this takes the input away again.
        "RABBITMQ_SERVER_START_ARGS": "-noinput",
        # By default schedulers are bound to cores, and every node of a small machine to the same ones.
        "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    if installation.libraries:
        env["LD_LIBRARY_PATH"] = ":".join(str(folder) for folder in installation.libraries)
    return env


def new_login() -> Login:
    """A user with a random password."""
    return Login("pipeline", secrets.token_urlsafe(24))


def _definitions(login: Login) -> dict[str, object]:
    return {
        "users": [
            {
                "name": login.user,
                "password_hash": _password_hash(login.password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"],
            }
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": login.user, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    }


def _password_hash(password: str) -> str:
    # https://www.rabbitmq.com/docs/passwords: base64(salt + sha256(salt + password)), salt of 4 bytes
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
