"""Who may do what: API keys, tokens, scopes, rate limits; and that no secret is told."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.gateway.conftest import Shop
from tests.gateway.test_publishing import problem
from tests.support.gateway import Gateway, gateway, wait_for

ISSUER = "https://issuer.example"
AUDIENCE = "shop"
PATH = "/events/order.created"


class Issuer:
    """Somebody who signs tokens; its public keys are in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.publish(self.rsa)

    def publish(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str = "one") -> None:
        """Write the file of public keys."""
        if isinstance(key, rsa.RSAPrivateKey):
            shown = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            shown["alg"] = "RS256"
        else:
            shown = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"keys": [shown | {"kid": kid}]}))
        draft.replace(self.file)

    def token(self, key: Any = None, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
        """A token with these claims beside the usual ones; None leaves one out."""
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 600, "scope": "publish:order.*"}
        said = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(said, key or self.rsa, algorithm, headers=None if kid is None else {"kid": kid})


@pytest.fixture(scope="module")
def issuer(application: Shop) -> Issuer:
    return Issuer(application.folder / "jwks.json")


@pytest.fixture(scope="module")
def tokens(application: Shop, issuer: Issuer) -> Iterator[Gateway]:
    """A gateway that takes the issuer's tokens."""
    options = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwks", str(issuer.file))
    with gateway(application.folder, application.environ, *options) as running:
        yield running


def bearer(running: Gateway, credential: str) -> httpx2.Response:
    with running.client() as client:
        return client.post(PATH, json={"number": 1}, headers={"authorization": f"Bearer {credential}"})


def test_without_credentials_nothing_is_open_but_health_and_the_empty_page(door: Gateway) -> None:
    with door.client() as client:
        for method, path in [("POST", PATH), ("POST", "/events"), ("GET", "/events/x"), ("GET", "/openapi.json")]:
            answer = client.request(method, path)
            problem(answer, 401, "credentials")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(
    "given", ["pk_", "pk_000000000000_" + "A" * 43, "pk_x", "nonsense", "a.b.c", "é", "x" * 20_000]
)
def test_a_key_that_is_none_is_refused(door: Gateway, given: str) -> None:
    with door.client() as client:
        problem(client.post(PATH, json={"number": 1}, headers={b"x-api-key": given.encode()}), 401, "credentials")


def test_a_key_with_another_secret_is_refused_and_a_revoked_one_soon(door: Gateway, application: Shop) -> None:
    # given a key that the command made
    key = application.run("keys", "create", "shop", "--scope", "publish:order.*")
    assert bearer(door, key).status_code == 202
    listed = json.loads(application.run("keys", "list", "--json"))["keys"]
    assert [each["name"] for each in listed if each["id"] == key.split("_")[1]] == ["shop"]
    assert key.split("_", 2)[2] not in json.dumps(listed)
    problem(bearer(door, key[:-1] + ("A" if key[-1] != "A" else "B")), 401, "credentials")
    application.run("keys", "revoke", key.split("_")[1])
    wait_for(lambda: bearer(door, key).status_code == 401, "the key to be refused")


def test_scopes_decide_what_may_be_done(door: Gateway, application: Shop) -> None:
    with door.client(application.key("publish:note.*")) as client:
        assert client.post("/events/note.taken", json={"any": 1}).status_code == 202
        problem(client.post(PATH, json={"number": 1}), 403, "scope")
        problem(client.get("/subscriptions/billing/results/x"), 403, "scope")
        problem(client.get("/consumers"), 403, "scope")
        mixed = {"specversion": "1.0", "id": "1", "source": "/t", "type": "order.created", "data": {"number": 1}}
        headers = {"content-type": "application/cloudevents-batch+json"}
        problem(client.post("/events", content=json.dumps([mixed]), headers=headers), 403, "scope")
    with door.client(application.key("read:billing")) as client:
        problem(client.post(PATH, json={"number": 1}), 403, "scope")
        problem(client.get("/subscriptions/billing/results/x"), 404, "no-result")


def test_a_good_token_is_taken(tokens: Gateway, issuer: Issuer) -> None:
    assert bearer(tokens, issuer.token()).status_code == 202
    assert bearer(tokens, issuer.token(kid=None)).status_code == 202  # there is one key only
    problem(bearer(tokens, issuer.token(scope="read:*")), 403, "scope")
    problem(bearer(tokens, issuer.token(scope="admin email")), 403, "scope")


def test_a_token_that_is_not_to_be_trusted_is_refused(tokens: Gateway, issuer: Issuer) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    public = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 600, "scope": "publish:*"}
    bad = {
        "expired": issuer.token(exp=time.time() - 60),
        "not yet": issuer.token(nbf=time.time() + 600),
        "of another issuer": issuer.token(iss="https://other.example"),
        "for another audience": issuer.token(aud="other"),
        "without an end": issuer.token(exp=None),
        "without an issuer": issuer.token(iss=None),
        "without a subject": issuer.token(sub=None),
        "signed by a stranger": issuer.token(key=stranger),
        "of an unknown key": issuer.token(kid="two"),
        "not signed": jwt.encode(claims, "", "none", headers={"kid": "one"}),
        "signed with the public key as a secret": _hmac_signed(claims, public),
        "changed": issuer.token()[:-10] + "AAAAAAAAAA",
        "too long": issuer.token(more="x" * 9000),
        "with an odd subject": issuer.token(sub="ann\nroot"),
    }
    assert {why: bearer(tokens, token).status_code for why, token in bad.items()} == dict.fromkeys(bad, 401)


def test_a_change_of_keys_is_noticed(tokens: Gateway, issuer: Issuer) -> None:
    before = issuer.token()
    fresh = ec.generate_private_key(ec.SECP256R1())
    issuer.publish(fresh, "two")
    try:
        token = issuer.token(key=fresh, algorithm="ES256", kid="two")
        wait_for(lambda: bearer(tokens, token).status_code == 202, "the new key to be taken")
        problem(bearer(tokens, before), 401, "credentials")
    finally:
        issuer.publish(issuer.rsa)
    wait_for(lambda: bearer(tokens, before).status_code == 202, "the old key to be back")


def test_more_than_the_rate_is_refused_for_that_caller_alone(application: Shop) -> None:
    with gateway(application.folder, application.environ, "--rate-limit", "5/hour") as running:
        with running.client(application.key("publish:*")) as client:
            answers = [client.post(PATH, json={"number": 1}) for _ in range(6)]
        assert [each.status_code for each in answers] == [202] * 5 + [429]
        problem(answers[-1], 429, "rate")
        assert int(answers[-1].headers["retry-after"]) > 0
        with running.client(application.key("publish:*")) as client:
            assert client.post(PATH, json={"number": 1}).status_code == 202


def test_insecure_is_for_this_machine_only(application: Shop) -> None:
    with gateway(application.folder, application.environ, "--insecure") as running, running.client() as client:
        assert client.post(PATH, json={"number": 1}).status_code == 202
        # and a page in a browser that calls this machine by another name gets nothing
        problem(client.post(PATH, json={"number": 1}, headers={"host": "evil.example"}), 403, "host")


def test_insecure_on_any_other_address_is_refused(application: Shop) -> None:
    with pytest.raises(AssertionError, match="--insecure lets everybody publish, so it is only for loopback"):
        application.run("gateway", "start", "--insecure", "--host", "0.0.0.0", "--port", "0")  # noqa: S104


def test_an_address_that_is_taken_is_said(application: Shop, door: Gateway) -> None:
    with pytest.raises(AssertionError, match="can't be listened on") as caught:
        application.run("gateway", "start", "--insecure", "--port", str(door.port))
    assert "Traceback" not in str(caught.value)


def test_secrets_are_in_no_log_and_in_no_answer(application: Shop, issuer: Issuer) -> None:
    key = application.key("publish:*", "read:*")
    token = issuer.token()
    options = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwks", str(issuer.file), "--log-level", "debug")
    said = []
    with gateway(application.folder, application.environ, *options) as running, running.client(key) as client:
        paths = ("/openapi.json", "/docs", "/readyz", "/events/none", "/consumers", "/subscriptions")
        said += [client.get(path).text for path in paths]
        said.append(client.post(PATH, json={"number": "card-4000-0000"}).text)
        said.append(client.post(f"{PATH}?secret=card-4000-0000", json={"number": 1, "note": "card-4000-0000"}).text)
        said.append(bearer(running, token).text)
        said.append(bearer(running, token + "x").text)
        assert running.terminate() == 0
        said += running.log
    whole = "\n".join(said)
    password = application.vhost.amqp_url.split(":")[2].partition("@")[0]
    for secret in (key, key.split("_", 2)[2], token, token.split(".")[2], "card-4000-0000", password):
        assert secret not in whole


def test_a_stored_key_is_a_hash(application: Shop) -> None:
    key = application.key("read:*")
    database = (application.folder / "state/data/producer.db").read_bytes()
    database += (application.folder / "state/data/producer.db-wal").read_bytes()
    assert key.split("_")[1].encode() in database
    assert key.split("_", 2)[2].encode() not in database


def _hmac_signed(claims: dict[str, Any], secret: bytes) -> str:
    """The attack on whoever lets the token choose: HS256, with the public key as the secret."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    signed = head + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.new(secret, signed, sha256).digest())).decode()
