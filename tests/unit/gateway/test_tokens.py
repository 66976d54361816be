"""JWTs: what a header or a file of keys may try, and what comes of it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.gateway.tokens import TokenRules, Tokens

KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"iss": "me", "aud": "shop", "sub": "ann", "scope": "publish:order.* openid read:*"}


def jwk(key: ec.EllipticCurvePrivateKey = KEY, **more: Any) -> dict[str, Any]:
    shown: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kid": "one"} | shown | more


def written(folder: Path, *keys: Any) -> Path:
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": list(keys)}))
    return file


def tokens(folder: Path, *keys: Any) -> Tokens:
    return Tokens(TokenRules("me", "shop", written(folder, *(keys or (jwk(),)))))


def token(header: dict[str, Any] | None = None, key: Any = KEY, algorithm: str = "ES256", **claims: Any) -> str:
    said = {"exp": time.time() + 60} | CLAIMS | claims
    return jwt.encode(said, key, algorithm, headers={"kid": "one"} | (header or {}))


def test_a_good_token_is_its_subject_with_our_scopes(tmp_path: Path) -> None:
    caller = tokens(tmp_path).caller(token())
    assert caller is not None
    assert (caller.id, caller.scopes) == ("jwt:ann", ("publish:order.*", "read:*"))


@pytest.mark.parametrize("scope", [["publish:order.*", 7, "read:*"], "read:*  publish:order.*"])
def test_scopes_are_words_or_a_list(tmp_path: Path, scope: Any) -> None:
    caller = tokens(tmp_path).caller(token(scope=scope))
    assert caller is not None
    assert set(caller.scopes) == {"publish:order.*", "read:*"}


@pytest.mark.parametrize("scope", [None, 7, {"publish:*": 1}, "publish publish: openid"])
def test_a_scope_claim_that_is_none_allows_nothing(tmp_path: Path, scope: Any) -> None:
    caller = tokens(tmp_path).caller(token(scope=scope))
    assert caller is not None
    assert caller.scopes == ()


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["made-up"], "made-up": 1},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"kid": "two"},
        {"kid": "../../../dev/null"},
        {"kid": "one' OR '1'='1"},
        {"kid": ""},
    ],
    ids=str,
)
def test_a_header_that_asks_for_more_is_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    try:
        asked = token(header)
    except jwt.PyJWTError:  # the library will not even make it
        signed = token().split(".")
        head = json.dumps({"alg": "ES256", "kid": "one"} | header).encode()
        asked = ".".join([base64.urlsafe_b64encode(head).rstrip(b"=").decode(), *signed[1:]])
    assert tokens(tmp_path).caller(asked) is None


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_itself_is_not_used(tmp_path: Path, header: str) -> None:
    value: Any = {"jwk": jwk(STRANGER), "x5c": ["AAAA"]}.get(header, "https://evil.example/keys")
    assert tokens(tmp_path).caller(token({header: value}, STRANGER)) is None
    assert tokens(tmp_path).caller(token({header: value})) is not None  # nor does it harm


@pytest.mark.parametrize("sub", [7, None, "", ["ann"], "a\nb", "a\x1b[2J", "x" * 201, "\ud800"], ids=repr)
def test_an_odd_subject_is_nobody(tmp_path: Path, sub: Any) -> None:
    try:
        asked = token(sub=sub)
    except TypeError:  # the library makes no such token: sign it by hand
        head, body = ({"alg": "ES256", "kid": "one"}, CLAIMS | {"exp": time.time() + 60, "sub": sub})
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body)]
        signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(b".".join(parts), KEY)
        asked = b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    assert tokens(tmp_path).caller(asked) is None


@pytest.mark.parametrize(
    "exp", [10**400, float("inf"), float("nan"), -1, "soon", None, []], ids=lambda exp: str(exp)[:8]
)
def test_an_odd_end_is_refused(tmp_path: Path, exp: Any) -> None:
    found = tokens(tmp_path).caller(token(exp=exp))
    assert found is None or exp == 10**400


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.lists(st.binary(max_size=30), min_size=3, max_size=3).map(
    lambda parts: ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)
))  # fmt: skip
def test_whatever_text_arrives_is_nobody(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    global _tokens
    _tokens = _tokens or tokens(tmp_path_factory.mktemp("keys"))
    assert _tokens.caller(text) is None


_tokens: Tokens | None = None


def test_keys_for_encryption_are_passed_over(tmp_path: Path) -> None:
    other = {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "e", "n": "AQAB", "e": "AQAB"}
    assert tokens(tmp_path, other, jwk()).caller(token()) is not None


def test_an_ed25519_key_is_taken(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    shown = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "one"}
    assert tokens(tmp_path, shown).caller(token(key=key, algorithm="EdDSA")) is not None


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    private = jwt.algorithms.ECAlgorithm.to_jwk(KEY, as_dict=True)
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - it must be refused
    weak = jwt.algorithms.RSAAlgorithm.to_jwk(small, as_dict=True)
    bad: list[list[Any]] = [
        [], ["text"], [7], [None], [{}], [{"kty": "oct", "k": "AAAA"}], [private], [weak], [jwk(), jwk(STRANGER)],
        [jwk(kid=None), jwk(STRANGER, kid=None)], [jwk(x="???")], [{"kty": "RSA", "use": "enc"}],
    ]  # fmt: skip
    for keys in bad:
        with pytest.raises(ConfigurationError, match="--jwks"):
            tokens(tmp_path, *keys) if keys else Tokens(TokenRules("me", "shop", written(tmp_path)))
    for text in ("", "[]", "{}", '{"keys": 7}', "[" * 100_000, "\udcff"):
        file = tmp_path / "odd.json"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigurationError, match="--jwks"):
            Tokens(TokenRules("me", "shop", file))
    with pytest.raises(ConfigurationError, match="--jwks"):
        Tokens(TokenRules("me", "shop", tmp_path / "none"))


def test_a_file_that_is_spoiled_later_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.gateway.tokens.LOOK", 0.0)
    found = tokens(tmp_path)
    for spoiled in ('{"keys": ["text"]}', "", "{"):
        (tmp_path / "jwks.json").write_text(spoiled)
        assert found.caller(token()) is not None
    written(tmp_path, jwk(STRANGER))
    assert found.caller(token()) is None
    assert found.caller(token(key=STRANGER)) is not None
