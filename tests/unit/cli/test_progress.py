"""Progress off a terminal: plain lines with rate and time left, not too many."""

from __future__ import annotations

import pytest

from pipeline.cli import common


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says next, one entry a look."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def test_a_line_has_count_rate_and_time_left(seconds: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with common.Progress("publishing", 10_000) as progress:
        seconds[0] = 2.0
        progress.advance(4000)
    assert capsys.readouterr().err == "publishing: 4,000 of 10,000, 2,000/s, 3 s left\n"


def test_lines_come_every_two_seconds_at_most(seconds: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with common.Progress("publishing", None) as progress:
        for tenth in range(60):
            seconds[0] = tenth / 10
            progress.advance(10)
    assert capsys.readouterr().err.splitlines() == ["publishing: 210, 105/s", "publishing: 410, 102/s"]


def test_a_quiet_one_says_nothing(seconds: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with common.Progress("publishing", 10, quiet=True) as progress:
        seconds[0] = 60.0
        progress.advance(10)
    assert capsys.readouterr().err == ""
