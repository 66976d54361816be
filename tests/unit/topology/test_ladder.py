"""The retry ladder: which attempts, after which waits, in which queues."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topology.expand import subscription_queues
from pipeline.topology.findings import Findings
from pipeline.topology.keys import MAX_TTL_MS
from pipeline.topology.ladder import MAX_RUNGS, resolve_retry
from pipeline.topology.model import RetryPolicy, Subscription

milliseconds = st.integers(min_value=1, max_value=MAX_TTL_MS)


def resolved(data: dict[str, Any] | None) -> RetryPolicy:
    """The policy of data that is right."""
    findings = Findings()
    policy = resolve_retry(data, ("retry",), findings)
    assert not findings.problems
    return policy


@pytest.mark.parametrize(
    ("data", "policy"),
    [
        (None, RetryPolicy(5, (1.0, 5.0, 30.0, 120.0))),
        ({}, RetryPolicy(5, (1.0, 5.0, 30.0, 120.0))),
        ({"attempts": 1}, RetryPolicy(1, ())),
        ({"attempts": 3}, RetryPolicy(3, (1.0, 5.0))),
        ({"attempts": 9}, RetryPolicy(9, (1.0, 5.0, 30.0, 120.0))),
        ({"delays": [1000, 2000]}, RetryPolicy(3, (1.0, 2.0))),
        ({"attempts": 7, "delays": [1000]}, RetryPolicy(7, (1.0,))),
        ({"delays": [1000, 5000, 1000]}, RetryPolicy(4, (1.0, 5.0, 1.0))),
        (
            {"attempts": 6, "initial": 1000, "factor": 4, "max": 600_000},
            RetryPolicy(6, (1.0, 4.0, 16.0, 64.0, 256.0)),
        ),
        ({"attempts": 6, "initial": 1000, "factor": 10, "max": 60_000}, RetryPolicy(6, (1.0, 10.0, 60.0))),
        ({"attempts": 4, "initial": 1000}, RetryPolicy(4, (1.0, 2.0, 4.0))),
        ({"attempts": 9, "initial": 500, "factor": 1}, RetryPolicy(9, (0.5,))),
        ({"attempts": 3, "initial": 3, "factor": 1.5}, RetryPolicy(3, (0.003, 0.004))),
    ],
)
def test_policies(data: dict[str, Any] | None, policy: RetryPolicy) -> None:
    assert resolved(data) == policy


@given(attempts=st.integers(2, 10_000), initial=milliseconds, factor=st.floats(1, 1000), highest=milliseconds)
def test_a_growing_series_never_shrinks_and_never_passes_its_cap(
    attempts: int, initial: int, factor: float, highest: int
) -> None:
    findings = Findings()
    data = {"attempts": attempts, "initial": initial, "factor": factor, "max": highest}

    policy = resolve_retry(data, ("retry",), findings)

    if highest < initial or len(set(policy.delays)) > MAX_RUNGS:
        assert [problem.path for problem in findings.problems] in (["retry.max"], ["retry"])
        return
    assert not findings.problems
    assert policy.delays[0] == initial / 1000
    assert list(policy.delays) == sorted(policy.delays)
    assert policy.delays[-1] <= highest / 1000
    assert 1 <= len(policy.delays) <= attempts - 1


@given(st.lists(milliseconds, min_size=1, max_size=MAX_RUNGS))
def test_each_distinct_delay_is_one_queue_with_just_that_ttl(delays: list[int]) -> None:
    # given a subscription with any ladder
    subscription = Subscription("s", (), (), "", resolved({"delays": delays}))

    queues = [queue for queue in subscription_queues(subscription) if queue.role == "retry"]

    # then there is one queue a distinct delay, found under the name the worker will look for
    assert [queue.arguments["x-message-ttl"] for queue in queues] == list(dict.fromkeys(delays))
    assert [queue.name for queue in queues] == [
        subscription.retry_queue(delay / 1000) for delay in dict.fromkeys(delays)
    ]
    assert len({queue.name for queue in queues}) == len(queues)
