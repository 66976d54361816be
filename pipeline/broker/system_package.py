"""RabbitMQ installed by the system's package manager: the last resort. In: root or sudo. Out: programs in
/usr/lib.

Debian's packages start and enable a system-wide broker and port mapper when they are installed. Both are
prevented: Debian's `policy-rc.d` forbids the start, and what was enabled is disabled again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from pipeline.broker import installation
from pipeline.broker.installation import Installation
from pipeline.errors import BrokerError

TIMEOUT = 900.0  # s

# 101 is policy-rc.d's word for "not allowed". A policy of the machine's own is put back however this ends.
SCRIPT = r"""
set -eu
policy=/usr/sbin/policy-rc.d
saved=
if [ -e "$policy" ]; then saved=$(mktemp "$policy.XXXXXX"); cp -p "$policy" "$saved"; fi
restore() { if [ -n "$saved" ]; then mv -f "$saved" "$policy"; else rm -f "$policy"; fi; }
trap restore EXIT
trap 'exit 130' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' > "$policy.new"; chmod 755 "$policy.new"; mv -f "$policy.new" "$policy"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
epmd_was_there=$(command -v epmd || true)
apt-get install -y -q --no-install-recommends rabbitmq-server \
    || { apt-get update -q; apt-get install -y -q --no-install-recommends rabbitmq-server; }
units=rabbitmq-server.service
if [ -z "$epmd_was_there" ]; then units="$units epmd.service epmd.socket"; fi
export DPKG_MAINTSCRIPT_PACKAGE=rabbitmq-server  # the helper works for packages only
for unit in $units; do deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true; done
update-rc.d rabbitmq-server disable >/dev/null 2>&1 || true
"""


class InstallError(BrokerError):
    """The package manager could not, or may not, install RabbitMQ."""


def install(say: Callable[[str], None]) -> Installation:
    """Install the distribution's package without a broker running or enabled afterwards.

    Raises: InstallError when there is no apt, no right to use it, or it fails.
    """
    if shutil.which("apt-get") is None:
        raise InstallError("this machine has no apt-get to install RabbitMQ with")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and (shutil.which("sudo") is None or _run([*as_root, "true"]).returncode):
        raise InstallError("installing RabbitMQ needs root, or sudo without a password")
    say("Installing rabbitmq-server with apt-get; no system-wide broker will be started …")
    done = _run([*as_root, "/bin/sh", "-c", SCRIPT])
    found = installation.on_machine()
    if done.returncode or found is None:
        raise InstallError(f"apt-get failed: {' '.join((done.stderr or done.stdout).split())[-500:]}")
    if not found.is_recent_enough:
        raise InstallError(f"the distribution's RabbitMQ is {found.version}; 3.10 or newer is needed")
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
