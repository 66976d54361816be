"""A PostgreSQL URL → connections. In: a URL, the parameters it carries. Out: `Address`, which opens connections.

Beside `timeout`, `command_timeout` and the TLS parameters of libpq (`sslmode`, `sslrootcert`, `sslcert`, …), whatever
the URL carries is a setting of the session (`search_path`, `application_name`, `synchronous_commit`, …), as in libpq's
own URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
from sqlalchemy.engine import URL

from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.store.postgres_faults import postgres_fault, without_values

TIMEOUT = 5.0  # s to connect, and to wait for another process's lock; `?timeout=` goes before it
COMMAND_TIMEOUT = 30.0  # s for one statement; `?command_timeout=` goes before it
GRACE = 2.0  # s the server gets to end a statement by itself before its connection is given up

# Of the session; each may be set to something else in the URL.
SETTINGS = {
    "jit": "off",  # compiling takes longer than any of our statements, and than what asyncpg asks about types
    # A plan that is kept was made when the table was small: an update by key went on reading all of a table that had
    # grown to 100,000 rows. Planning anew costs about 50 µs a statement.
    "plan_cache_mode": "force_custom_plan",
    # A worker whose machine is gone must not hold the others up with its locks.
    "idle_in_transaction_session_timeout": "60s",
}
FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"}  # parameters that name one
# Connecting fails with these when the URL asks for something the server does not have.
WRONG_SETTING = ("22023", "42602", "42704", "55P02")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is and how to reach it. `name` says so without secrets."""

    name: str
    parameters: Mapping[str, Any]  # of asyncpg.connect
    settings: Mapping[str, str]

    async def connect(self, **settings: str) -> asyncpg.Connection[Any]:
        """A new connection; `settings` are for its session, besides those of the address.

        Raises: StoreUnavailable, or ConfigurationError when the URL asks for what can't be.
        """
        try:
            return await asyncpg.connect(**self.parameters, server_settings={**self.settings, **settings})
        except asyncpg.ClientConfigurationError as error:
            raise ConfigurationError(f"the database URL {self.name} can't be used: {error}") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate in WRONG_SETTING:
                reason = error.args[0]
                raise ConfigurationError(f"the database {self.name} refuses what its URL asks for: {reason}") from error
            raise postgres_fault(error, self.name) or self._not_reached(error) from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise self._not_reached(error) from error

    def _not_reached(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, TimeoutError):
            reason = f"no answer within {self.parameters['timeout']:g} s"
        else:
            reason = without_values(error)
        return StoreUnavailable(
            f"the database {self.name} can't be reached ({reason}): check that PostgreSQL runs there, and the address"
        )


def address_of(url: URL, subscription: str) -> Address:
    """The address that a URL means. Raises: ConfigurationError when a parameter can't be read."""
    name = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
    query = {key: value if isinstance(value, str) else ",".join(value) for key, value in url.query.items()}
    if "ssl" in query:
        query.setdefault("sslmode", query.pop("ssl"))  # SQLAlchemy's word for it with this driver
    for key in FILES & query.keys():
        if not Path(query[key]).is_file():
            raise ConfigurationError(f"{key} of the database URL {name} names {query[key]}, which is no file")
    timeout = _seconds(query, "timeout", TIMEOUT, name)
    command_timeout = _seconds(query, "command_timeout", COMMAND_TIMEOUT, name)
    defaults = {
        **SETTINGS,
        "application_name": f"pipeline {subscription}",
        "lock_timeout": f"{timeout * 1000:.0f}ms",
        "statement_timeout": f"{command_timeout * 1000:.0f}ms",
    }
    parameters = {
        "dsn": f"postgresql://?{urlencode(query)}" if query else "postgresql://",
        "user": url.username,
        "password": url.password,
        "host": url.host,
        "port": url.port,
        "database": url.database or None,
        "timeout": timeout,
        "command_timeout": command_timeout + GRACE,
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    return Address(name, given, {key: value for key, value in defaults.items() if key not in query})


def _seconds(query: dict[str, str], key: str, default: float, name: str) -> float:
    text = query.pop(key, "")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 86_400:
        raise ConfigurationError(f"{key}={text} in the database URL {name} must be a number of seconds above 0")
    return seconds
