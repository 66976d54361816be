"""Who sends a request. In: its headers. Out: a `Caller`, or 401 or 403.

`Authorization: Bearer` takes an API key or a JWT, `X-API-Key` an API key. Nothing else is read: what stands in a URL
ends up in logs.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Protocol

from starlette.requests import Request

from pipeline.gateway.api_keys import KeyRing
from pipeline.gateway.problems import refused
from pipeline.gateway.scopes import EVERYTHING, Caller
from pipeline.gateway.tokens import Tokens

ANONYMOUS = Caller("anonymous", EVERYTHING)
HOST = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
CHALLENGE = 'Bearer realm="pipeline"'


class Authentication(Protocol):
    """Tells who sends a request."""

    async def caller(self, request: Request) -> Caller:
        """Raises: Refused (401), StoreUnavailable."""
        ...


class Credentials:
    """Callers by API key and, with `tokens`, by JWT."""

    def __init__(self, keys: KeyRing, tokens: Tokens | None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def caller(self, request: Request) -> Caller:
        """Raises: Refused (401), StoreUnavailable."""
        given = _given(request)
        if given.startswith("pk_"):
            found = await self._keys.caller(given)
        else:
            found = self._tokens.caller(given) if self._tokens is not None else None
        if found is None:
            raise refused(
                401,
                "credentials",
                "the credentials are unknown, wrong, expired or revoked",
                www_authenticate=f'{CHALLENGE}, error="invalid_token"',
            )
        return found


class Open:
    """Everybody may do everything: for a gateway that only this machine can reach.

    A browser can be made to call this machine under another name (DNS rebinding), so the name has to be ours.
    """

    async def caller(self, request: Request) -> Caller:
        """Raises: Refused (403)."""
        # Not `request.url`: where the header is odd, that falls back to our own address.
        named = HOST.fullmatch(request.headers.get("host", ""))
        if named is None or not is_loopback(named[1].lower()):
            raise refused(403, "host", "an insecure gateway answers only as localhost, 127.0.0.1 or [::1]")
        return ANONYMOUS


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _given(request: Request) -> str:
    """The one credential in the headers. Raises: Refused (401)."""
    found = [("", value) for value in request.headers.getlist("x-api-key")]
    found += [(scheme, rest) for scheme, _, rest in map(_parts, request.headers.getlist("authorization"))]
    if len(found) != 1:
        more = "more than one" if found else "no"
        raise refused(401, "credentials", f"{more} credentials; {_HOW}", www_authenticate=CHALLENGE)
    scheme, credential = found[0]
    if scheme not in ("", "bearer"):
        raise refused(401, "credentials", f"that scheme is not taken; {_HOW}", www_authenticate=CHALLENGE)
    return credential


_HOW = "send an API key as `X-API-Key: pk_...`, or a key or a JWT as `Authorization: Bearer ...`"


def _parts(value: str) -> tuple[str, str, str]:
    scheme, space, rest = value.strip().partition(" ")
    return scheme.lower(), space, rest.strip()
