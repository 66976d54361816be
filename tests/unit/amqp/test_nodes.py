"""Which node is asked: any, until one answers; first those that answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pipeline.amqp import nodes
from pipeline.amqp.nodes import first_to_answer, in_order
from pipeline.errors import AuthenticationFailed, BrokerUnavailable

URL = "amqp://u:secret@a:1,b:2,c:3/v"
ADDRESSES = [f"amqp://u:secret@{place}/v" for place in ("a:1", "b:2", "c:3")]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is remembered from test to test."""
    monkeypatch.setattr(nodes, "_silent", {})
    return iter([None])


async def test_processes_spread_over_all_nodes() -> None:
    asked = []

    async def ask(address: str) -> None:
        asked.append(address)

    for _ in range(200):
        await first_to_answer(URL, ADDRESSES, ask)

    assert len(asked) == 200
    assert all(asked.count(address) > 20 for address in ADDRESSES)


async def test_one_that_answers_is_found_and_those_that_did_not_come_last_from_then_on() -> None:
    asked = []

    async def ask(address: str) -> str:
        asked.append(address)
        if address != ADDRESSES[1]:
            raise BrokerUnavailable(address)
        return "here"

    while len(set(asked)) < 3:
        assert await first_to_answer(URL, ADDRESSES, ask) == "here"

    assert all(in_order(ADDRESSES)[0] == ADDRESSES[1] for _ in range(50))


async def test_one_that_hung_until_the_caller_gave_up_comes_last_as_well() -> None:
    async def hang(address: str) -> None:
        hung.append(address)
        await asyncio.sleep(60)

    hung: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await first_to_answer(URL, ADDRESSES, hang)

    assert all(in_order(ADDRESSES)[-1] == hung[0] for _ in range(50))


async def test_the_error_names_every_node_and_no_password() -> None:
    async def ask(address: str) -> None:
        raise BrokerUnavailable(f"{address.partition('@')[2]} is gone")

    with pytest.raises(BrokerUnavailable) as error:
        await first_to_answer(URL, ADDRESSES, ask)

    said = str(error.value)
    assert said.startswith("none of the 3 nodes of amqp://u:***@a:1,b:2,c:3/v can be reached: ")
    assert all(f"{place}/v is gone" in said for place in ("a:1", "b:2", "c:3"))
    assert "secret" not in said


async def test_what_the_cluster_itself_says_is_asked_of_one_node_only() -> None:
    asked = []

    async def ask(address: str) -> None:
        asked.append(address)
        raise AuthenticationFailed("wrong password")

    with pytest.raises(AuthenticationFailed):
        await first_to_answer(URL, ADDRESSES, ask)
    assert len(asked) == 1


async def test_a_preferred_node_goes_first_even_when_it_was_silent() -> None:
    assert all(in_order(ADDRESSES, ADDRESSES[2])[0] == ADDRESSES[2] for _ in range(20))
