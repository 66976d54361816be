"""What may be served where, and how long ending may take."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigurationError
from pipeline.gateway.authentication import HOST, is_loopback
from pipeline.gateway.server import Serving, check_serving, drain_times


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "::ffff:192.0.2.1", "127.0.0.1.example", "[", "1"])  # noqa: S104
def test_insecure_on_any_other_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="only for loopback"):
        check_serving(Serving(host, insecure=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_insecure_on_this_machine_is_taken(host: str) -> None:
    check_serving(Serving(host, insecure=True))


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("localhost", True), ("LocalHost:8080", True), ("127.0.0.1:1", True), ("127.9.9.9", True), ("[::1]:80", True),
        ("", False), ("evil.example", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False),
        ("[::1", False), ("[foo]:99999", False), ("localhost:port", False), ("127.0.0.1@evil", False), ("127.1", False),
    ],
)  # fmt: skip
def test_names_of_this_machine(header: str, ours: bool) -> None:
    named = HOST.fullmatch(header)
    assert (named is not None and is_loopback(named[1].lower())) is ours


@pytest.mark.parametrize("deadline", [0.1, 1, 5, 30, 600])
def test_the_steps_of_draining_stay_below_the_deadline(deadline: float) -> None:
    times = drain_times(deadline)
    assert min(times.notice, times.requests, times.relay) > 0
    assert times.notice + times.requests + times.relay < deadline
    assert times.requests >= times.relay
