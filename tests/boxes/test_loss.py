"""The whole picture as `make up` starts it, under load, while each box is killed (SIGKILL), gone for a while, and back.

One picture and one load for all of it: the tests look at what it showed. `make chaos` does the same for minutes.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.processes import end
from scripts.chaos.client import Client
from scripts.chaos.load import order
from scripts.chaos.story import BOXES, Loss, Told, tell
from scripts.up import control, marks
from scripts.up.application import API_KEY
from scripts.up.place import PROJECT, Place, open_place
from scripts.up.supervisor import OWN

RATE = 30.0  # requests/s: there is one machine for all boxes, the clients, and other tests
GONE = 1.5  # s that a box is away at least
CALM = 0.7  # s before a kill, and after a return
KEPT = ("gateway-1", "broker", "payments-cache", "payments-worker", "relay")  # no request may fail


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The picture, running."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-up-"))
    opened = open_place(folder)
    try:
        control.up(opened, ["--folder", str(folder), "--port", "0"])
        yield opened
    finally:
        control.down(opened)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def told(place: Place) -> Told:
    """What happened."""
    return asyncio.run(tell(place, RATE, BOXES, GONE, CALM, print))


def loss_of(told: Told, box: str) -> Loss:
    """What clients saw while this box was gone."""
    (loss,) = [loss for loss in told.losses if loss.box == box]
    assert loss.events > RATE * GONE / 2, "there was no load"
    return loss


@pytest.mark.parametrize("box", KEPT)
def test_no_request_fails_while_this_box_is_gone(told: Told, box: str) -> None:
    failed = loss_of(told, box).failed
    assert not failed, f"{len(failed)} failed, the first with {failed[0].status} {failed[0].words}"


def test_without_a_workers_database_every_event_is_taken_and_only_what_lies_in_it_can_not_be_read(told: Told) -> None:
    failed = loss_of(told, "payments-db").failed
    assert [each for each in failed if not each.reads] == []
    assert {each.status for each in failed} <= {503}


def test_without_the_producers_database_requests_are_refused_and_never_in_doubt_for_long(told: Told) -> None:
    # given the one box without which nothing can be accepted
    failed = loss_of(told, "producer-db").failed
    # then clients were told to come again later, by a gateway or by haproxy: no cut connection, no 500
    assert failed, "nothing failed: it was not gone"
    assert {each.status for each in failed if not each.reads} <= {503}


def test_every_accepted_event_ends_once_in_every_subscription(told: Told) -> None:
    # given all requests that were answered 202
    books = told.books
    # then each is one event, processed or a dead letter, once, as databases and dead-letter queues say
    assert books.wrong == []
    assert books.accepted > RATE * GONE * len(BOXES) / 2
    assert books.events >= books.accepted
    # and there were dead letters among them, in both subscriptions that refuse some
    assert books.dead["payments"]
    assert books.dead["inventory"]
    assert books.dead["orders"] == 0
    # and hardly one lies there twice: only one whose worker was killed between the letter's confirm and the ack
    assert sum(books.copies.values()) <= sum(books.dead.values()) / 4


def test_no_password_and_no_key_is_in_the_log_or_the_status(place: Place, told: Told) -> None:
    # given every secret of the picture
    secrets = [each.read_text().strip() for each in (place.folder / "secrets").iterdir()]
    assert len(secrets) > len(BOXES)
    assert told.books.events
    # then none is in what the boxes wrote, nor in what the supervisor says
    for path in (place.log, place.status):
        words = path.read_text()
        assert [secret for secret in secrets if secret in words] == []
        assert path.stat().st_mode & 0o077 == 0
    # nor in any command line
    for pid in marks.find_all(place):
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert [secret for secret in secrets if secret in command] == []


def test_up_again_after_a_killed_supervisor_and_down_keeps_the_data(place: Place, told: Told) -> None:
    # given a picture whose supervisor is killed: its boxes run on
    (supervisor,) = marks.find(place, OWN)
    end([supervisor], signal.SIGKILL, 10)
    assert len(set(marks.find_all(place).values())) > len(BOXES)
    # when it is started again
    said = control.up(place, ["--folder", str(place.folder)])
    # then everything is ready, at the addresses of before, and takes an event with the key of before
    assert said["pid"] != supervisor
    answer = asyncio.run(send(place, said["addresses"]["front door"], told.books.events + 1_000_000))
    assert answer == 202
    # and when it is ended, nothing runs and nothing is lost
    command = [sys.executable, "-m", "scripts.up", "down", "--folder", str(place.folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "data stays" in done.stdout
    assert marks.find_all(place) == {}
    assert (place.folder / "producer-db" / "data" / "PG_VERSION").exists()


async def send(place: Place, door: str, number: int) -> int:
    """The status one order is answered with."""
    host, port = door.removeprefix("http://").split(":")
    client = Client(host, int(port))
    headers = {"Authorization": f"Bearer {place.secret(API_KEY)}", "Content-Type": "application/json"}
    answer = await client.send("POST", "/events/order.created", headers, order(number))
    await client.close()
    return answer.status
