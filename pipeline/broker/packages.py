"""RabbitMQ from the distribution's packages, without root. In: the machine's apt sources. Out: a folder with
programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pipeline.broker import installation
from pipeline.broker.debian import Recipe, UnpackError, run
from pipeline.broker.debian import unpack as unpack_packages
from pipeline.broker.installation import Installation

PACKAGE = "rabbitmq-server"

# Debian's start script of Erlang insists on /usr/lib/erlang; this finds its root from its own place, so that
# the folder works wherever it is moved.
FIXED_ROOT = re.compile(r"\bROOTDIR=(['\"]?)/usr/lib/erlang\1\s*$", re.MULTILINE)
OWN_ROOT = 'ROOTDIR="$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)"'


def unpack(packages: Path, say: Callable[[str], None]) -> Installation:
    """RabbitMQ and Erlang unpacked in `packages`; done once, safe to call from two places at once.

    Raises: UnpackError when there is no apt, no such package, or the programs do not run.
    """
    recipe = Recipe(
        PACKAGE,
        "RabbitMQ and Erlang packages (about 35 MB, no root needed)",
        belongs=lambda name: name.startswith("erlang-"),
        programs=_programs,
        adapt=_adapt,
        try_out=_try_out,
    )
    unpack_packages(packages, recipe, say, lambda: installation.unpacked(packages) is not None)
    found = installation.unpacked(packages)
    if found is None or not found.is_recent_enough:
        version = f"RabbitMQ {found.version}" if found else "no RabbitMQ"
        raise UnpackError(f"the distribution's packages hold {version}; 3.10 or newer is needed")
    return found


def _programs(root: Path) -> list[Path]:
    return [*root.glob("usr/lib/erlang/erts-*/bin/*"), *root.glob("usr/lib/erlang/lib/*/priv/**/*.so")]


def _adapt(root: Path) -> None:
    erl = root / "usr/lib/erlang/bin/erl"
    erl.write_text(FIXED_ROOT.sub(lambda _: OWN_ROOT, erl.read_text()))


def _try_out(root: Path) -> None:
    """Run Erlang with its cryptography once: fails here, in a clear place, if the folder can't run programs."""
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(root),
        "LD_LIBRARY_PATH": ":".join(str(folder) for folder in installation.library_folders(root)),
    }
    check = "ok = crypto:start(), halt(0)."
    run([str(root / "usr/lib/erlang/bin/erl"), "-noinput", "-boot", "start_clean", "-eval", check], env=env)
