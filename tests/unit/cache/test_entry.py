"""What a cached value looks like in the cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cache.entry import Entry, decode_entry


@given(st.binary(), st.integers(0, 2**43))
def test_an_entry_comes_back(value: bytes, milliseconds: int) -> None:
    entry = Entry(value, milliseconds / 1000)
    assert decode_entry(entry.encode()) == entry


@pytest.mark.parametrize(
    "data",
    [None, "text", 7, b"", b"v1 ", b"v1 12", b"v1 x\n{}", b"v1 -1\n{}", b"v2 12\n{}", b"{}", b"\x80\x04\x95pickle."],
)
def test_what_somebody_else_left_is_nothing(data: object) -> None:
    assert decode_entry(data) is None


@given(st.binary())
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    assert decode_entry(data) is None or data.startswith(b"v1 ")


def test_an_age_is_never_negative() -> None:
    assert Entry(b"", 100.0).age(99.0) == 0.0
    assert Entry(b"", 100.0).age(130.5) == 30.5
