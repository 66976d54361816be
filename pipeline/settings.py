"""Environment → frozen settings. In: `PIPELINE_*` variables and the private node's address file. Out: `Settings`.

Nothing else in the library reads the environment.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline.errors import ConfigurationError

STATE_DIR = ".pipeline"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are and how patient to be. Durations are seconds, sizes bytes."""

    amqp_url: str
    management_url: str  # http://user:password@host:port, "" when unknown
    state_dir: Path
    topology: Path
    database_url: str  # "{subscription}" in it is replaced by the subscription's name
    broker_found_in: str  # what to tell a user who asks "which broker?"
    heartbeat: int = 10  # aiormq finds a dead peer after (heartbeat + 1) * 3 s
    connect_timeout: float = 5.0
    publish_deadline: float = 30.0
    drain_deadline: float = 30.0  # SIGTERM: time to finish what is in hand
    max_body: int = 128 * MEGABYTE  # of a message as it travels, and of what it decompresses to


def load_settings(environ: Mapping[str, str] | None = None, topology: str | None = None) -> Settings:
    """Settings from the environment; `topology` (the CLI's option) goes before `PIPELINE_TOPOLOGY`.

    The broker is `PIPELINE_AMQP_URL`, else the private node of the nearest `.pipeline/` folder.

    Raises: ConfigurationError on a value that can't be read.
    """
    env = os.environ if environ is None else environ
    state_dir = find_state_dir(env)
    amqp_url, management_url, found_in = _broker(env, state_dir)
    default_db = f"sqlite+aiosqlite:///{state_dir / 'data'}/{{subscription}}.db"
    return Settings(
        amqp_url=amqp_url,
        management_url=_readable("PIPELINE_MANAGEMENT_URL", env.get("PIPELINE_MANAGEMENT_URL", management_url)),
        state_dir=state_dir,
        topology=Path(topology or env.get("PIPELINE_TOPOLOGY") or "topology"),
        database_url=env.get("PIPELINE_DATABASE_URL") or default_db,
        broker_found_in=found_in,
        heartbeat=int(_number(env, "PIPELINE_HEARTBEAT", 10)),
        connect_timeout=_number(env, "PIPELINE_CONNECT_TIMEOUT", 5.0),
        publish_deadline=_number(env, "PIPELINE_PUBLISH_DEADLINE", 30.0),
        drain_deadline=_number(env, "PIPELINE_DRAIN_DEADLINE", 30.0),
        max_body=int(_number(env, "PIPELINE_MAX_BODY", 128 * MEGABYTE)),
    )


def mask(url: str) -> str:
    """The URL with its password replaced by `***`, fit for logs and errors."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def find_state_dir(env: Mapping[str, str]) -> Path:
    """`PIPELINE_STATE_DIR`, else the nearest `.pipeline/` upwards, else the one to be made in the working folder."""
    if explicit := env.get("PIPELINE_STATE_DIR"):
        return Path(explicit).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / STATE_DIR).is_dir():
            return folder / STATE_DIR
    return here / STATE_DIR


def _broker(env: Mapping[str, str], state_dir: Path) -> tuple[str, str, str]:
    if url := env.get("PIPELINE_AMQP_URL"):
        parts = urlsplit(_readable("PIPELINE_AMQP_URL", url))
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ConfigurationError(
                f"PIPELINE_AMQP_URL is {mask(url)!r}; it must look like amqp://user:password@host:5672/vhost"
            )
        login = f"{quote(parts.username or 'guest')}:{quote(parts.password or 'guest')}"
        # RabbitMQ's default: management listens on 15672, or 15671 with TLS.
        management = (
            f"https://{login}@{parts.hostname}:15671"
            if parts.scheme == "amqps"
            else f"http://{login}@{parts.hostname}:15672"
        )
        return url, management, "PIPELINE_AMQP_URL"
    node_file = state_dir / "broker" / "node.json"
    try:
        node = json.loads(node_file.read_text())
        return str(node["amqp_url"]), str(node["management_url"]), f"the private node of {node_file.parent}"
    except FileNotFoundError:
        return "", "", "nowhere"
    except (ValueError, KeyError, OSError) as error:
        raise ConfigurationError(f"{node_file} can't be read ({error}); run `pipeline broker start`") from error


def _readable(name: str, url: str) -> str:
    """The URL. Raises: ConfigurationError when it can't be taken apart; it is not shown, for it may hold a password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigurationError(
            f"{name} can't be read: something is wrong with its host or port; in user and password write / as %2F, "
            "@ as %40 and : as %3A"
        ) from None
    return url


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}; it must be a number") from None
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{name} is {text!r}; it must be above 0, and finite")
    return value
