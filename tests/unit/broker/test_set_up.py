"""Finding a broker and its programs, as far as that needs no broker."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pipeline.broker import installation, packages, probe
from pipeline.broker.address import Address, read_record, recorded_address, write_record
from pipeline.broker.locate import find_broker
from pipeline.broker.ports import choose, remembered
from pipeline.errors import BrokerUnavailable

CONNECTION_START = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\xce"


@contextmanager
def server_that_answers(answer: bytes) -> Iterator[int]:
    """A TCP server on a free port that gives `answer` to whoever says something; its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(8)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def find(environ: dict[str, str], state_dir: Path) -> tuple[str, str]:
    found = find_broker(state_dir, environ, print, state_dir / "compose.yaml")
    return found.address.amqp_url, found.where


def test_a_given_address_goes_before_everything_else(tmp_path: Path) -> None:
    # given an address where something speaks AMQP
    with server_that_answers(CONNECTION_START) as port:
        url = f"amqp://user:secret@127.0.0.1:{port}/shop"

        # when a broker is wanted, then it is this one, and nothing was started for it
        assert find({"PIPELINE_AMQP_URL": url}, tmp_path) == (url, "PIPELINE_AMQP_URL")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01"])
def test_a_given_address_that_speaks_no_amqp_is_an_error_without_the_password(tmp_path: Path, answer: bytes) -> None:
    # given an address where somebody listens who is no RabbitMQ (or one of another protocol version)
    with server_that_answers(answer) as port:
        url = f"amqp://user:secret@127.0.0.1:{port}/shop"

        # when it is to be used, then it is refused: falling back to another broker would be a surprise
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}/shop") as caught:
            find({"PIPELINE_AMQP_URL": url}, tmp_path)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_where_nothing_can_be_had_one_sentence_names_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a machine without RabbitMQ, Docker and apt
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation, "on_machine", lambda: None)

    # when a broker is wanted
    with pytest.raises(BrokerUnavailable) as caught:
        find({}, tmp_path / ".pipeline")

    # then the error says what to do
    for way_out in ("rabbitmq-server (3.10 or newer)", "Docker", "PIPELINE_AMQP_URL=amqp://"):
        assert way_out in str(caught.value)


def test_the_newest_programs_are_taken_and_too_old_ones_are_not(tmp_path: Path) -> None:
    def install(version: str) -> None:
        for program in (
            f"usr/lib/rabbitmq/lib/rabbitmq_server-{version}/sbin/rabbitmq-server",
            "usr/lib/erlang/bin/erl",
            "usr/lib/erlang/bin/epmd",
        ):
            (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / program).touch()

    # given a release that can't hold a retry ladder
    install("3.9.27")
    too_old = installation.unpacked(tmp_path)
    assert too_old is not None
    assert not too_old.is_recent_enough

    # when newer ones come, then the newest by number, not by spelling, is the one
    install("3.10.8")
    install("3.9.9")
    found = installation.unpacked(tmp_path)
    assert found is not None
    assert (found.version, found.is_recent_enough) == ("3.10.8", True)


def test_unpacked_erlang_finds_itself_wherever_it_is_moved(tmp_path: Path) -> None:
    # given a start script as Debian's packages have it
    script = tmp_path / "a folder" / "bin" / "erl"
    script.parent.mkdir(parents=True)
    original = '#!/bin/sh\nif true\nthen\n    ROOTDIR=/usr/lib/erlang\nfi\necho "$ROOTDIR"\n'
    script.write_text(packages.FIXED_ROOT.sub(lambda _: packages.OWN_ROOT, original))
    script.chmod(0o755)

    # when the folder is moved and the script run
    moved = (tmp_path / "a folder").rename(tmp_path / "elsewhere")
    said = subprocess.run([moved / "bin" / "erl"], capture_output=True, text=True, check=True).stdout

    # then it knows where it is
    assert said.strip() == str(moved)


def test_ports_are_kept_while_they_are_free() -> None:
    first = choose(None)
    assert len({first.amqp, first.management, first.prometheus, first.distribution, first.epmd}) == 5
    assert choose(first) == first

    # when somebody else takes one of them
    with closing(socket.create_server(("127.0.0.1", first.management))):
        second = choose(first)

    # then others are chosen
    assert second.management != first.management


def test_the_address_file_is_private_and_read_back_whole(tmp_path: Path) -> None:
    address = Address("amqp://u:p@127.0.0.1:1/%2F", "http://u:p@127.0.0.1:2", "n@localhost", "3.10.8", 7, "")
    path = tmp_path / "node.json"

    write_record(path, address, ports={"amqp": 1})

    assert path.stat().st_mode & 0o777 == 0o600
    assert recorded_address(read_record(path)) == address
    assert [entry.name for entry in tmp_path.iterdir()] == ["node.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 7}', '{"ports": {"amqp": "x"}}'])
def test_a_damaged_address_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(text)

    assert recorded_address(read_record(path)) is None
    assert remembered(read_record(path)) is None


def test_a_port_that_nobody_serves_accepts_no_amqp() -> None:
    free = choose(None)
    assert not probe.accepts_amqp(f"amqp://u:p@127.0.0.1:{free.amqp}/")
    assert probe.overview(f"http://u:p@127.0.0.1:{free.management}") is None
