"""When the breaker lets a call through."""

from __future__ import annotations

from pipeline.cache.breaker import Breaker


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    """A breaker that has just opened: three failures in a row, two seconds between probes."""
    breaker = Breaker(3, 2.0, clock)
    for error in ("one", "two", "three"):
        assert breaker.allows()
        breaker.failed(error)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    # given two failures, a success, and two failures: never three in a row
    breaker = Breaker(3, 2.0, Clock())
    told = [breaker.failed("x"), breaker.failed("x")]
    breaker.succeeded()
    told += [breaker.failed("x"), breaker.failed("x")]
    assert told == [False] * 4
    assert breaker.allows()
    assert breaker.error is None

    # when there is a third, then it opens, says so once, and tells why
    assert breaker.failed("the last straw")
    assert not breaker.failed("another, that was under way")
    assert not breaker.allows()
    assert breaker.error == "another, that was under way"


def test_while_it_is_open_there_is_one_probe_a_pause() -> None:
    clock = Clock()
    breaker = opened(clock)

    # given that the pause is not over, then nothing passes
    clock.now += 1.99
    assert not any(breaker.allows() for _ in range(100))

    # when it is over, then one does, even when that one never tells how it ended
    clock.now += 0.01
    assert [breaker.allows() for _ in range(100)].count(True) == 1
    clock.now += 1.99
    assert not breaker.allows()
    clock.now += 0.01
    assert breaker.allows()


def test_a_probe_that_fails_begins_the_pause_anew() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2
    assert breaker.allows()
    clock.now += 1.5  # the probe took that long
    breaker.failed("still")
    clock.now += 1.9
    assert not breaker.allows()
    clock.now += 0.1
    assert breaker.allows()


def test_the_first_success_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.error is None
    assert all(breaker.allows() for _ in range(100))
    # and it takes three failures again to open it
    breaker.failed("x")
    assert breaker.allows()
