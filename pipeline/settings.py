"""Environment → frozen settings. In: `PIPELINE_*` variables and the private node's address file. Out: `Settings`.

Nothing else in the library reads the environment.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipeline.addresses import addresses_of, mask
from pipeline.errors import ConfigurationError

STATE_DIR = ".pipeline"
VARIABLES = "PIPELINE_"
DATABASE = "PIPELINE_DATABASE_URL"
CACHE = "PIPELINE_CACHE_URL"
FROM_FILE = "_FILE"  # PIPELINE_DATABASE_URL_FILE
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are and how patient to be. Durations are seconds, sizes bytes."""

    amqp_url: str  # with the addresses of all nodes when it is a cluster: `pipeline.addresses` takes it apart
    management_url: str  # http://user:password@host:port, of several nodes as well; "" when unknown
    state_dir: Path
    topology: Path
    database_url: str  # of subscriptions; "{subscription}" in it is replaced by the name; ask `database_of`
    producer_database_url: str  # of the gateway: accepted events, its outbox, API keys
    broker_found_in: str  # what to tell a user who asks "which broker?"
    heartbeat: int = 10  # aiormq finds a dead peer after (heartbeat + 1) * 3 s
    connect_timeout: float = 5.0
    publish_deadline: float = 30.0
    drain_deadline: float = 30.0  # SIGTERM: time to finish what is in hand
    max_body: int = 128 * MEGABYTE  # of a message as it travels, and of what it decompresses to
    cache_url: str = ""  # redis://…, "" for the process's own memory; ask `cache_of`
    rate_limit_url: str = ""  # redis://… where gateways count requests together, "" for each by itself
    own_database_urls: Mapping[str, str] = field(default_factory=dict)  # PIPELINE_DATABASE_URL_PAYMENTS → "PAYMENTS"
    own_cache_urls: Mapping[str, str] = field(default_factory=dict)

    def database_of(self, subscription: str) -> str:
        """The URL of a subscription's database; "{subscription}" in it is still to be replaced."""
        return self.own_database_urls.get(variable_suffix(subscription), self.database_url)

    def cache_of(self, subscription: str) -> str:
        """The URL of a subscription's cache; "" for the process's own memory."""
        return self.own_cache_urls.get(variable_suffix(subscription), self.cache_url)


def load_settings(environ: Mapping[str, str] | None = None, topology: str | None = None) -> Settings:
    """Settings from the environment; `topology` (the CLI's option) goes before `PIPELINE_TOPOLOGY`.

    The broker is `PIPELINE_AMQP_URL`, else the private node of the nearest `.pipeline/` folder. Any variable may be
    given as a file instead: `PIPELINE_AMQP_URL_FILE=/run/secrets/amqp_url` is how container engines hand over secrets.

    Raises: ConfigurationError on a value that can't be read.
    """
    env = _with_files(os.environ if environ is None else environ)
    state_dir = find_state_dir(env)
    amqp_url, management_url, found_in = _broker(env, state_dir)
    default_db = f"sqlite+aiosqlite:///{state_dir / 'data'}/{{subscription}}.db"
    return Settings(
        amqp_url=amqp_url,
        management_url=_readable("PIPELINE_MANAGEMENT_URL", env.get("PIPELINE_MANAGEMENT_URL", management_url)),
        state_dir=state_dir,
        topology=Path(topology or env.get("PIPELINE_TOPOLOGY") or "topology"),
        database_url=env.get(DATABASE) or default_db,
        producer_database_url=env.get("PIPELINE_PRODUCER_DATABASE_URL")
        or f"sqlite+aiosqlite:///{state_dir / 'data' / 'producer.db'}",
        broker_found_in=found_in,
        heartbeat=int(_number(env, "PIPELINE_HEARTBEAT", 10)),
        connect_timeout=_number(env, "PIPELINE_CONNECT_TIMEOUT", 5.0),
        publish_deadline=_number(env, "PIPELINE_PUBLISH_DEADLINE", 30.0),
        drain_deadline=_number(env, "PIPELINE_DRAIN_DEADLINE", 30.0),
        max_body=int(_number(env, "PIPELINE_MAX_BODY", 128 * MEGABYTE)),
        cache_url=env.get(CACHE, ""),
        rate_limit_url=env.get("PIPELINE_RATE_LIMIT_URL", ""),
        own_database_urls=_of_each(env, DATABASE),
        own_cache_urls=_of_each(env, CACHE),
    )


def variable_suffix(subscription: str) -> str:
    """What stands behind a variable's name when it is for one subscription: `card-payments` → `CARD_PAYMENTS`."""
    return re.sub(r"[^A-Z0-9]", "_", subscription.upper())


def find_state_dir(env: Mapping[str, str]) -> Path:
    """`PIPELINE_STATE_DIR`, else the nearest `.pipeline/` upwards, else the one to be made in the working folder."""
    if explicit := env.get("PIPELINE_STATE_DIR"):
        return Path(explicit).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / STATE_DIR).is_dir():
            return folder / STATE_DIR
    return here / STATE_DIR


def _with_files(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables, those given as a file read from it."""
    env = dict(environ)
    for name, path in environ.items():
        if not (name.startswith(VARIABLES) and name.endswith(FROM_FILE)) or not path:
            continue
        plain = name.removesuffix(FROM_FILE)
        if environ.get(plain):
            raise ConfigurationError(f"{plain} and {name} are both set; keep one of them")
        try:
            env[plain] = Path(path).read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{name} names {path}, which can't be read: {error}") from None
    return env


def _of_each(env: Mapping[str, str], name: str) -> dict[str, str]:
    """The values of `name` that are for one subscription, by what is behind its name."""
    return {
        key.removeprefix(f"{name}_"): value
        for key, value in env.items()
        if key.startswith(f"{name}_") and not key.endswith(FROM_FILE) and value
    }


def _broker(env: Mapping[str, str], state_dir: Path) -> tuple[str, str, str]:
    if url := env.get("PIPELINE_AMQP_URL"):
        nodes = [urlsplit(each) for each in addresses_of(_readable("PIPELINE_AMQP_URL", url))]
        first = nodes[0]
        if first.scheme not in ("amqp", "amqps") or not all(node.hostname for node in nodes):
            raise ConfigurationError(
                f"PIPELINE_AMQP_URL is {mask(url)!r}; it must look like amqp://user:password@host:5672/vhost, "
                "or for a cluster amqp://user:password@host1:5672,host2:5672/vhost"
            )
        login = ":".join(quote(unquote(word or "guest"), safe="") for word in (first.username, first.password))
        # RabbitMQ's default: management listens on 15672, or 15671 with TLS.
        scheme, port = ("https", 15671) if first.scheme == "amqps" else ("http", 15672)
        hosts = dict.fromkeys(f"[{node.hostname}]" if ":" in str(node.hostname) else node.hostname for node in nodes)
        return url, f"{scheme}://{login}@{','.join(f'{host}:{port}' for host in hosts)}", "PIPELINE_AMQP_URL"
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
        addresses_of(url)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name} can't be read: {error}") from None
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
