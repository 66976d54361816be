"""A certificate for 127.0.0.1, made anew each time with nothing but the standard library. Out: a PEM file and contexts.

ECDSA over P-256 and just enough of X.509 (RFC 5280) for a certificate that is its own authority.
"""

from __future__ import annotations

import hashlib
import secrets
import ssl
from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from pathlib import Path

# The curve P-256 of FIPS 186-4, section D.1.2.3: the field, the order of the base point, and that point.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int]

P256 = bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107")  # id-ecPublicKey, prime256v1
SIGNED_WITH = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
COMMON_NAME = bytes.fromhex("0603550403")


def server_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and the certificate file its clients have to trust (`?cafile=`)."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    secret = secrets.randbelow(N - 1) + 1
    certificate.write_text(_pem("CERTIFICATE", _certificate(secret)))
    key.write_text(_pem("EC PRIVATE KEY", _key(secret)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def _certificate(secret: int) -> bytes:
    public = b"\x04" + b"".join(each.to_bytes(32) for each in _times(secret, G))
    name = _der(0x30, _der(0x31, _der(0x30, COMMON_NAME, _der(0x0C, b"pipeline test"))))
    now = datetime.now(UTC)
    validity = [_der(0x18, f"{now + timedelta(days=days):%Y%m%d%H%M%SZ}".encode()) for days in (-1, 1)]
    extensions = (
        _extension("551d13", _der(0x30, b"\x01\x01\xff")),  # an authority: its own
        _extension("551d0f", b"\x03\x02\x02\x84"),  # to sign with, certificates too
        _extension("551d0e", _der(0x04, hashlib.sha1(public, usedforsecurity=False).digest())),
        _extension("551d11", _der(0x30, b"\x87\x04" + bytes((127, 0, 0, 1)))),
    )
    told = _der(
        0x30,
        _der(0xA0, b"\x02\x01\x02"),  # version 3
        _der(0x02, b"\x01" + secrets.token_bytes(8)),
        SIGNED_WITH,
        name,
        _der(0x30, *validity),
        name,
        _der(0x30, _der(0x30, P256), _der(0x03, b"\x00", public)),
        _der(0xA3, _der(0x30, *extensions)),
    )
    return _der(0x30, told, SIGNED_WITH, _der(0x03, b"\x00", _signature(secret, told)))


def _extension(oid: str, value: bytes) -> bytes:
    critical = b"\x01\x01\xff" if oid in ("551d13", "551d0f") else b""
    return _der(0x30, _der(0x06, bytes.fromhex(oid)), critical, _der(0x04, value))


def _key(secret: int) -> bytes:
    return _der(0x30, b"\x02\x01\x01", _der(0x04, secret.to_bytes(32)), _der(0xA0, P256[9:]))


def _signature(secret: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest())
    once = secrets.randbelow(N - 1) + 1
    r = _times(once, G)[0] % N
    s = pow(once, -1, N) * (digest + r * secret) % N
    return _der(0x30, _int(r), _int(s))


def _int(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _times(factor: int, point: Point) -> Point:
    found: Point | None = None
    while factor:
        if factor & 1:
            found = point if found is None else _plus(found, point)
        point = _plus(point, point)
        factor >>= 1
    assert found is not None
    return found


def _plus(one: Point, other: Point) -> Point:
    if one == other:
        slope = 3 * (one[0] ** 2 - 1) * pow(2 * one[1], -1, P)  # the curve's a is -3
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope**2 - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes(max(1, (len(body).bit_length() + 7) // 8))
    return bytes((tag,)) + (size if len(body) < 128 else bytes((0x80 | len(size),)) + size) + body


def _pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{encodebytes(der).decode()}-----END {label}-----\n"
