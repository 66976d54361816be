"""Scopes, against a matcher that is slow and plain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from pipeline.gateway.problems import Refused
from pipeline.gateway.scopes import Caller, checked, matches

LETTERS = st.text("ab.*", max_size=8)


def plain(pattern: str, name: str) -> bool:
    """By trying everything."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(plain(pattern[1:], name[at:]) for at in range(len(name) + 1))
    return bool(name) and name[0] == pattern[0] and plain(pattern[1:], name[1:])


@settings(max_examples=400, deadline=None)
@given(LETTERS, LETTERS)
def test_patterns_match_as_the_plain_matcher_says(pattern: str, name: str) -> None:
    assert matches(pattern, name) == plain(pattern, name)


@settings(max_examples=100, deadline=None)
@given(LETTERS, LETTERS, LETTERS)
def test_what_fits_a_pattern_matches(first: str, middle: str, last: str) -> None:
    assert matches(f"{first}*{last}", f"{first}{middle}{last}")


def test_a_scope_is_for_its_action_and_its_names_only() -> None:
    caller = Caller("key:1", ("publish:order.*", "read:billing"))
    assert caller.may("publish", "order.created")
    assert not caller.may("publish", "orders")
    assert not caller.may("read", "order.created")
    assert caller.may("read", "billing")
    assert not caller.may("read", "billing2")
    assert not caller.may("publish", "x" * 65536)
    assert not Caller("key:2", ()).may_any("read")
    with pytest.raises(Refused) as caught:
        caller.require("read", "payments")
    assert caught.value.problem.status == 403


def test_the_ends_of_a_pattern_do_not_share_characters() -> None:
    assert not matches("ab*b", "ab")
    assert not matches("a*a", "a")
    assert matches("a*a", "aa")


def test_many_stars_take_no_longer_than_one() -> None:
    assert not matches("*a" * 100 + "b", "a" * 65536)  # exponential for a matcher that tries everything


@pytest.mark.parametrize(
    "scope", ["", "publish", "publish:", "write:x", "read:a b", "read:a:b", "read:a\n", "READ:a", "read:" + "x" * 201]
)
def test_what_is_no_scope_is_refused(scope: str) -> None:
    with pytest.raises(ConfigurationError):
        checked([scope])


def test_a_key_needs_a_scope() -> None:
    with pytest.raises(ConfigurationError):
        checked([])
    assert checked(["read:*", "publish:a.*.b"]) == ("read:*", "publish:a.*.b")
