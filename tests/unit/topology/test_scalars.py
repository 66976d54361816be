"""Plain words, durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.model import duration_text
from pipeline.topology.scalars import duration_ms, plain_value, size_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        # what YAML 1.1 would have turned into something else
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0777", 777),
        ("2026-11-21", "2026-11-21"),
        # what no topology means
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_words_follow_the_core_schema(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


@given(st.integers(min_value=1, max_value=2**32 - 1))
def test_a_duration_survives_being_written_and_read(milliseconds: int) -> None:
    assert duration_ms(duration_text(milliseconds / 1000)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("1s", 1000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0s", 0)],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1 s", "1S", "1w", "1m30s", "1,5s", "1e3s", "5s ", "\N{FULLWIDTH DIGIT NINE}s"]
)
def test_what_is_no_duration(text: str) -> None:
    assert duration_ms(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KB", 64_000), ("64KiB", 65_536), ("1.5MB", 1_500_000), ("1GB", 10**9), ("1GiB", 2**30)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5", "KB", "-1KB", "1 KB", "1kb", "1TB"])
def test_what_is_no_size(text: str) -> None:
    assert size_bytes(text) is None
