"""The supervisor of `make up`, with real processes of no importance."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.processes import end
from scripts.up import control, marks
from scripts.up.box import ProcessBox, Step
from scripts.up.journal import Journal
from scripts.up.place import PROJECT, Place, choose_ports, open_place, readable_by_others
from scripts.up.supervisor import OWN, Stage, Supervisor
from tests.support.topologies import until

ENVIRONMENT = {"PATH": os.environ["PATH"]}
SERVES = 'echo begun; touch ready; trap "echo ending; rm ready; exit 0" TERM; while :; do sleep 0.05; done'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place of the test's own."""
    return open_place(tmp_path / "up")


def box(place: Place, name: str, script: str = SERVES) -> ProcessBox:
    """A shell script that is ready when it made the file `ready`."""
    folder = place.box(name)

    async def ready() -> bool:
        return (folder / "ready").exists()

    return ProcessBox(place, name, ("/bin/sh", "-c", script), ENVIRONMENT, ready, folder, patience=5)


def step(place: Place, name: str, script: str) -> Step:
    """A shell script that ends."""
    return Step(place, name, ("/bin/sh", "-c", script), ENVIRONMENT, place.folder)


@asynccontextmanager
async def supervised(place: Place, *stages: Stage) -> AsyncIterator[asyncio.Task[int]]:
    """A supervisor that runs for the block, and ends in order."""
    journal = Journal(place.log)
    running = asyncio.create_task(Supervisor(place, stages, journal, {}).run())
    try:
        yield running
    finally:
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await asyncio.gather(running, return_exceptions=True)
        await journal.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


def status(place: Place) -> Any:
    """What the supervisor says."""
    return control.read_status(place)


async def until_ready(place: Place) -> None:
    """Wait for the whole."""

    async def ready() -> bool:
        return bool(status(place).get("state") == "ready")

    await until(ready, "everything is ready")


def said(place: Place) -> list[str]:
    """The log without times: `box | words`."""
    lines = place.log.read_text().splitlines()
    return [" ".join(line.split()[1:]) for line in lines]


async def test_stages_start_one_after_another_and_end_in_reverse(place: Place) -> None:
    # given two stages with a step between them
    stages = ([box(place, "one")], [step(place, "between", "test -e one/ready && echo fine >&2")], [box(place, "two")])
    # when they are run and ended
    async with supervised(place, *stages) as running:
        await until_ready(place)
    # then the step found the first stage ready, and the second stage ended before the first
    lines = said(place)
    order = ["one | begun", "between | fine", "two | begun", "two | ending", "one | ending"]
    assert [line for line in lines if line in order] == order
    assert running.result() == 0
    assert status(place)["state"] == "stopped"
    assert marks.find_all(place) == {}


async def test_a_box_that_dies_comes_back_and_its_helpers_are_ended_first(place: Place) -> None:
    # given a box with a process that it started
    script = f"sleep 300 & {SERVES}"
    async with supervised(place, [box(place, "one", script)]):
        await until_ready(place)
        before = marks.find(place, "one")
        # when its first process is killed
        (place.folder / "one" / "ready").unlink()
        os.kill(status(place)["boxes"]["one"]["pid"], signal.SIGKILL)

        async def back() -> bool:
            state = status(place)["boxes"]["one"]
            return bool(state["state"] == "ready" and state["starts"] == 2)

        await until(back, "the box is ready again")
        # then it is another process, and nothing of the old one is left
        assert not set(before) & set(marks.find(place, "one"))
        assert status(place)["boxes"]["one"]["ended"] == "killed by SIGKILL"


async def test_one_that_keeps_dying_is_started_ever_more_slowly_and_holds_nobody_up_at_the_end(place: Place) -> None:
    # given a box that was ready once, and from then on ends at once
    script = f"if mkdir lived; then {SERVES}; fi; exit 3"
    async with supervised(place, [box(place, "one", script)]):
        await until_ready(place)
        (place.folder / "one" / "ready").unlink()
        os.kill(status(place)["boxes"]["one"]["pid"], signal.SIGKILL)

        async def twice() -> bool:
            return any("again in 1.6 s" in line for line in said(place)) if place.log.exists() else False

        await until(twice, "four lives")
    # then the pauses doubled, and it could be ended while it was down
    pauses = [line.rpartition(" in ")[2] for line in said(place) if "exit code 3" in line]
    assert pauses[:3] == ["0.4 s", "0.8 s", "1.6 s"]
    assert status(place)["state"] == "stopped"


async def test_a_box_that_is_held_stays_away(place: Place) -> None:
    # given a box that is to stay away when it is gone
    async with supervised(place, [box(place, "one")]):
        await until_ready(place)
        hold = place.hold("one")
        hold.touch()
        (place.folder / "one" / "ready").unlink()
        os.kill(status(place)["boxes"]["one"]["pid"], signal.SIGKILL)

        async def down() -> bool:
            return bool(status(place)["boxes"]["one"]["state"] == "down")

        await until(down, "the box is down")
        # when several pauses have passed
        await asyncio.sleep(0.6)
        assert status(place)["boxes"]["one"]["starts"] == 1
        # then it comes back only when it may
        hold.unlink()
        await until_ready_again(place, "one", 2)


async def until_ready_again(place: Place, name: str, starts: int) -> None:
    """Wait for a life of a box."""

    async def back() -> bool:
        state = status(place)["boxes"][name]
        return bool(state["state"] == "ready" and state["starts"] == starts)

    await until(back, f"{name} is back")


async def test_a_step_that_fails_ends_everything_and_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a step that never ends well
    monkeypatch.setattr("scripts.up.supervisor.ATTEMPTS", 2)
    stages = ([box(place, "one")], [step(place, "wrong", "echo no such table >&2; exit 5")], [box(place, "two")])
    async with supervised(place, *stages) as running:
        code = await running
    # then the supervisor ends, and with it what had started; what comes after was not started
    assert code == 1
    assert status(place)["state"] == "failed"
    assert any("wrong ended with exit code 5: no such table" in line for line in said(place))
    assert marks.find_all(place) == {}
    assert "two | begun" not in said(place)


async def test_a_box_that_is_never_ready_ends_everything(place: Place) -> None:
    # given a box that ends before it is ready, however often it is started
    async with supervised(place, [box(place, "one"), box(place, "two", "echo no such file; exit 2")]) as running:
        code = await running
    # then the supervisor gives up, says which and why, and ends the other one
    assert code == 1
    assert status(place)["why"] == "two ended 5 times and was never ready (exit code 2)"
    assert marks.find_all(place) == {}


def test_what_a_killed_supervisor_left_is_ended(place: Place) -> None:
    # given processes of a box whose supervisor is gone, one of them the other's child
    script = "trap 'exit 0' TERM; sleep 300 & while :; do sleep 0.05; done"
    process = subprocess.Popen(["/bin/sh", "-c", script], env={**ENVIRONMENT, **marks.mark(place, "one")})
    stranger = subprocess.Popen(["/bin/sleep", "300"], env=ENVIRONMENT, cwd=place.folder)
    try:
        # when it is swept up
        assert control.sweep(place)
        # then none is left, and a process that is not of this place is untouched, though it stands in its folder
        assert marks.find_all(place) == {}
        assert stranger.poll() is None
        assert not control.sweep(place)
    finally:
        for each in (process, stranger):
            each.kill()
            each.wait()


def test_there_is_one_supervisor_a_place(place: Place) -> None:
    with control.only_one(place), pytest.raises(control.AlreadyUp, match="runs already"), control.only_one(place):
        pass


def test_a_copy_of_the_folder_is_another_place(place: Place, tmp_path: Path) -> None:
    # given a place with ports
    ports = choose_ports(place, ["door", "other"], 0)
    assert choose_ports(open_place(place.folder), ["door", "other"], None) == ports
    # when its folder is copied, and moved
    shutil.copytree(place.folder, tmp_path / "copy")
    place.folder.rename(tmp_path / "moved")
    # then the copy's processes would be others, and the moved one's are the same
    assert open_place(tmp_path / "copy").identity != place.identity
    assert open_place(tmp_path / "moved").identity == place.identity


def test_a_supervisor_that_can_not_begin_says_why(tmp_path: Path) -> None:
    # given a topology that can't be read
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nsubscriptions: nonsense\n")
    # when everything is to be started
    command = [sys.executable, "-m", "scripts.up", "up", "--folder", str(tmp_path / "up"), "--topology", str(bad)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120)
    # then the command ends with the reason, and nothing runs
    assert done.returncode == 1
    assert "bad.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    place = open_place(tmp_path / "up")
    left = marks.find(place, OWN)
    end(left, signal.SIGKILL, 5)
    assert not left


def test_a_box_of_another_user_lies_where_that_user_can_come(tmp_path: Path) -> None:
    # given a place that anybody may walk to, and one in a closed folder, such as root's home
    tmp_path.chmod(0o700)
    closed = open_place(tmp_path / "closed")
    with tempfile.TemporaryDirectory(prefix="pipeline-test-") as folder:
        Path(folder).chmod(0o711)
        walkable = open_place(Path(folder) / "up")
        # then the first keeps its box itself, and stays closed to reading
        assert readable_by_others(walkable, "some-db") == walkable.folder / "some-db"
        assert walkable.folder.stat().st_mode & 0o077 == 0o011
    # and the second one's box is elsewhere, at the same place each time, and can be walked to
    elsewhere = readable_by_others(closed, "some-db")
    try:
        assert elsewhere == readable_by_others(closed, "some-db")
        assert elsewhere.name == "some-db"
        assert tmp_path not in elsewhere.parents
        assert all(part.stat().st_mode & 0o001 for part in (elsewhere, *elsewhere.parents))
    finally:
        shutil.rmtree(elsewhere.parent)


def test_secrets_are_for_the_owner(place: Place) -> None:
    # given a secret that was made up
    value = place.secret("password")
    # then it stays, is long, and only its owner can read it
    assert place.secret("password") == value
    assert len(value) >= 32
    assert place.secret_file("password").stat().st_mode & 0o077 == 0
    with suppress(FileNotFoundError):
        assert value not in json.dumps(status(place))
