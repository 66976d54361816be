"""One URL, several nodes: taken apart, masked, told apart from another cluster."""

from __future__ import annotations

import pytest

from pipeline.addresses import addresses_of, cluster_of, mask, vhost_of, without_login


@pytest.mark.parametrize(
    ("url", "each"),
    [
        ("amqp://u:p@one:5672/v", ["amqp://u:p@one:5672/v"]),
        ("amqp://one", ["amqp://one"]),
        ("amqp://u:p@a:1, b ,[::1]:3/v?x=1,2", ["amqp://u:p@a:1/v?x=1,2", "amqp://u:p@b/v?x=1,2", "amqp://u:p@[::1]:3/v?x=1,2"]),
        ("amqp://u:p,q@a,a,b/", ["amqp://u:p,q@a/", "amqp://u:p,q@b/"]),
        ("amqp://u:p@q@one/", ["amqp://u:p@q@one/"]),
        ("", [""]),
    ],
)  # fmt: skip
def test_each_address_is_a_url_of_its_own(url: str, each: list[str]) -> None:
    assert list(addresses_of(url)) == each


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:secret@a:1,[::1]:2/v?x=y", "amqp://u:***@a:1,[::1]:2/v?x=y"),
        ("amqp://u:se@cret@a/v", "amqp://u:***@a/v"),
        ("amqp://u@a,b/v", "amqp://u@a,b/v"),
        ("sqlite+aiosqlite:///a@b:c.db", "sqlite+aiosqlite:///a@b:c.db"),
        ("", ""),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_the_login_and_the_virtual_host_are_told_apart_from_the_addresses() -> None:
    assert without_login("http://u:p@a:1,b:2/x") == "http://a:1,b:2/x"
    assert vhost_of("amqp://u:p@a,[::1]:2/my%2Fhost?x=y") == "my/host"
    assert vhost_of("amqp://u:p@a,b") == "/"


def test_a_cluster_is_the_same_one_in_whatever_order_its_addresses_are_written() -> None:
    assert cluster_of("amqp://u:p@b:2,a:1/v") == cluster_of("amqp://u:other@a:1,b:2/v") == "a:1,b:2/v"
    # and one address is called what it was called before there could be several
    assert cluster_of("amqp://u:p@a:1/v") == "a:1/v"
