"""One URL, the nodes of one cluster. In: `amqp://user:password@a:5672,b:5672/vhost`. Out: a URL for each address.

User, password, scheme and everything behind the addresses are the same for all nodes, and so are written once. A URL
with one address is its own only one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigurationError

_URL = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<place>[^/?#]*)(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Taken apart by hand: `urlsplit` knows one host, and refuses an IPv6 literal that stands behind another."""

    scheme: str
    login: str
    hosts: tuple[str, ...]
    rest: str

    @classmethod
    def of(cls, url: str) -> _Parts | None:
        """None when it has no place for addresses."""
        found = _URL.fullmatch(url)
        if found is None:
            return None
        login, at, hosts = found["place"].rpartition("@")
        each = tuple(dict.fromkeys(host.strip() for host in hosts.split(",")))
        return cls(found["scheme"], login + at, each, found["rest"])


def addresses_of(url: str) -> tuple[str, ...]:
    """A URL for each address in `url`, in its order; one that is there twice comes once.

    Raises: ConfigurationError when it can't be taken apart; it does not show the URL, which may hold a password.
    """
    parts = _Parts.of(url)
    if parts is None:
        return (url,)
    if len(parts.hosts) > 1 and not all(parts.hosts):
        raise ConfigurationError("an address is missing before or behind a comma")
    if re.search(r"@[^@]*,", parts.login):
        raise ConfigurationError(
            "of several addresses, only the first has user and password before it; in these write @ as %40 and , as %2C"
        )
    found = tuple(f"{parts.scheme}://{parts.login}{host}{parts.rest}" for host in parts.hosts)
    try:
        for each in found:
            _ = urlsplit(each).port
    except ValueError:
        raise ConfigurationError(
            "something is wrong with its host or port; in user and password write / as %2F, @ as %40 and : as %3A"
        ) from None
    return found


def mask(url: str) -> str:
    """The URL with its password replaced by `***`, fit for logs and errors."""
    parts = _Parts.of(url)
    user, colon, _ = parts.login.partition(":") if parts is not None else ("", "", "")
    return f"{parts.scheme}://{user}:***@{','.join(parts.hosts)}{parts.rest}" if parts is not None and colon else url


def without_login(url: str) -> str:
    """The URL without user and password."""
    parts = _Parts.of(url)
    return url if parts is None else f"{parts.scheme}://{','.join(parts.hosts)}{parts.rest}"


def vhost_of(amqp_url: str) -> str:
    """The virtual host an AMQP URL names: "/" when it names none."""
    return unquote(urlsplit(addresses_of(amqp_url)[0]).path[1:]) or "/"


def cluster_of(amqp_url: str) -> str:
    """What tells one broker from another: its addresses, in whatever order they are written, and the virtual host."""
    each = [urlsplit(address) for address in addresses_of(amqp_url)]
    return ",".join(sorted(f"{parts.hostname}:{parts.port}" for parts in each)) + each[0].path
