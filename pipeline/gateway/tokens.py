"""JWT bearer tokens. In: a token, and a file of public keys (JWKS, RFC 7517). Out: who it is, or that it is nobody.

Only signatures that need a private key are taken: with HMAC, whoever knows the public key could sign; and `none` is no
signature. Which algorithm a key is for is the key's own word, never the token's.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from pipeline.errors import ConfigurationError
from pipeline.gateway.scopes import SCOPE, Caller
from pipeline.log import get_logger

log = get_logger("gateway")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
NEEDED = ["exp", "iss", "aud", "sub"]
LEEWAY = 5.0  # seconds that clocks may differ
LOOK = 1.0  # seconds between looks whether the file has changed
LONGEST = 8192  # characters of a token
LONGEST_SUBJECT = 200  # characters
SMALLEST_RSA = 2048  # bits


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Whose tokens are taken."""

    issuer: str
    audience: str
    keys: Path  # the JWKS file


class Tokens:
    """Checks tokens by `rules`. The file of keys is read again when it changes; one that can't be read changes nothing.

    Raises: ConfigurationError when the file can't be used at the start.
    """

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        self._keys = _read(rules.keys)
        self._stamp = _stamp(rules.keys)
        self._looked = time.monotonic()
        self._decoder = jwt.PyJWT({"enforce_minimum_key_length": True})

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None when it is not to be trusted."""
        if len(token) > LONGEST:
            return None
        self._reload()
        try:
            key = self._key(jwt.get_unverified_header(token))
            if key is None:
                return None
            claims: dict[str, Any] = self._decoder.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=LEEWAY,
                options={"require": NEEDED},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.info("token refused", why=type(error).__name__)
            return None
        subject = claims["sub"]
        if not subject.isprintable() or not 0 < len(subject) <= LONGEST_SUBJECT:
            return None
        return Caller(f"jwt:{subject}", _scopes(claims.get("scope", "")))

    def _key(self, header: dict[str, Any]) -> jwt.PyJWK | None:
        """The key that the token names, or the only one there is."""
        if "kid" not in header:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(str(header["kid"]))

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        stamp = _stamp(self._rules.keys)
        if stamp == self._stamp:
            return
        try:
            self._keys = _read(self._rules.keys)
            self._stamp = stamp
            log.info("token keys read again", keys=sorted(self._keys))
        except ConfigurationError as error:
            log.warning("token keys can't be read again; the old ones stay", error=str(error))


def _scopes(claim: Any) -> tuple[str, ...]:
    """The scopes of ours in the claim: words in a text (RFC 8693), or a list. Those of others are passed over."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return tuple(word for word in words if isinstance(word, str) and SCOPE.fullmatch(word))


def _stamp(file: Path) -> tuple[int, int, int]:
    """What changes when the file does."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(file: Path) -> dict[str, jwt.PyJWK]:
    try:
        entries = json.loads(file.read_bytes())["keys"]
        # Issuers list keys for encryption there, too.
        keys = [_usable(entry, file) for entry in entries if entry.get("use", "sig") == "sig"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise ConfigurationError(f"--jwks {file} can't be used: {type(error).__name__}") from None
    if not keys:
        raise ConfigurationError(f"--jwks {file} holds no keys for signatures")
    named = {key.key_id or "": key for key in keys}
    if len(named) < len(keys):
        raise ConfigurationError(f"--jwks {file} holds several keys of one name (kid), or without; each needs its own")
    return named


def _usable(entry: dict[str, Any], file: Path) -> jwt.PyJWK:
    name = f"key {str(entry.get('kid', ''))[:60]!r} of --jwks {file}"
    if entry.get("kty") == "oct":
        raise ConfigurationError(f"{name} is a shared secret; only public keys (RSA, EC, OKP) are taken")
    if "d" in entry:
        raise ConfigurationError(f"{name} is a private key; give the gateway the public one only")
    key = jwt.PyJWK(entry)
    if key.algorithm_name not in ALGORITHMS:
        raise ConfigurationError(f"{name} is for {key.algorithm_name}; there are {', '.join(ALGORITHMS)}")
    if entry["kty"] == "RSA" and key.key.key_size < SMALLEST_RSA:
        raise ConfigurationError(f"{name} has {key.key.key_size} bits; RSA keys need {SMALLEST_RSA}")
    return key
