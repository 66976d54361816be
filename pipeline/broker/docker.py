"""RabbitMQ in Docker, from the project's `compose.yaml`. In: an engine that runs. Out: a broker's address."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.broker import node_files, ports, probe
from pipeline.broker.address import Address, Login, read_record, write_private, write_record
from pipeline.errors import BrokerUnavailable

SERVICE = "rabbitmq"
ASK_TIMEOUT = 10.0  # s: an engine that runs answers at once
UP_TIMEOUT = 600.0  # s: the first time, the image is downloaded


def engine_runs() -> bool:
    """Whether a Docker engine answers and its client knows `compose`; a client alone is not enough."""
    if shutil.which("docker") is None:
        return False
    questions = (["docker", "info"], ["docker", "compose", "version"])
    return all(_run(question, ASK_TIMEOUT, dict(os.environ)).returncode == 0 for question in questions)


def start(state_dir: Path, compose_file: Path) -> Address:
    """Have the compose file's broker running and healthy; login and ports are kept in
    `<state>/broker/node.json`.

    Raises: BrokerUnavailable with Docker's own words.
    """
    folder = state_dir.absolute() / "broker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = read_record(folder / "node.json")
    login, amqp, management = _last(record) or _new()
    address = Address(login.at("amqp", amqp) + "/%2F", login.at("http", management))
    # Kept before it is used: the container's volume remembers the login from its first start on.
    write_record(folder / "node.json", address, docker=str(compose_file.absolute()))
    _write_secrets(folder / "secrets", login)
    up = [*_compose(compose_file, state_dir), "up", "--detach", "--wait", SERVICE]
    done = _run(up, UP_TIMEOUT, _environment(state_dir, amqp, management))
    if done.returncode:
        words = " ".join(done.stderr.split())[-500:]
        raise BrokerUnavailable(f"`docker compose up {SERVICE}` failed: {words}")
    said = probe.overview(address.management_url)
    if said is None:
        down = " ".join([*_compose(compose_file, state_dir), "down", "--volumes"])
        raise BrokerUnavailable(
            "RabbitMQ in Docker refuses our login: its volume was made with another one; "
            f"`{down}` removes container and volume with everything in them"
        )
    node, version = str(said.get("node", "")), str(said.get("rabbitmq_version", ""))
    address = replace(address, nodename=node, version=version)
    write_record(folder / "node.json", address, docker=str(compose_file.absolute()))
    return address


def stop(state_dir: Path) -> bool:
    """Stop the container that `start` started; its volume stays. False when there was none."""
    return _compose_again(state_dir, "stop", SERVICE)


def remove(state_dir: Path) -> bool:
    """Remove the container that `start` started, and its volume. False when there was none."""
    return _compose_again(state_dir, "down", "--volumes")


def _compose_again(state_dir: Path, *arguments: str) -> bool:
    record = read_record(state_dir.absolute() / "broker" / "node.json")
    last = _last(record)
    if last is None:
        return False
    command = [*_compose(Path(str(record["docker"])), state_dir), *arguments]
    _, amqp, management = last
    return _run(command, UP_TIMEOUT, _environment(state_dir, amqp, management)).returncode == 0


def _write_secrets(folder: Path, login: Login) -> None:
    """The files that `compose.yaml` gives to RabbitMQ, as `deploy/make-secrets` would write them.

    They are mounted with their owner into a container of another user: the folder keeps everybody else out.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    words = {"rabbitmq.conf": f"default_user = {login.user}\ndefault_pass = {login.password}\n"}
    if not (folder / "erlang_cookie").exists():
        words["erlang_cookie"] = secrets.token_hex(24)
    for name, text in words.items():
        write_private(folder / name, text)
        (folder / name).chmod(0o444)


def _environment(state_dir: Path, amqp: int, management: int) -> dict[str, str]:
    """What `compose.yaml` asks for."""
    return {
        **os.environ,
        "PIPELINE_SECRETS": str(state_dir.absolute() / "broker" / "secrets"),
        "PIPELINE_RABBITMQ_PORT": str(amqp),
        "PIPELINE_RABBITMQ_MANAGEMENT_PORT": str(management),
    }


def _compose(compose_file: Path, state_dir: Path) -> list[str]:
    # A project of its own for each state folder: two checkouts share neither container nor volume.
    project = f"pipeline-{hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:8]}"
    return ["docker", "compose", "--file", str(compose_file), "--project-name", project]


def _last(record: dict[str, object]) -> tuple[Login, int, int] | None:
    if not record.get("docker"):
        return None
    amqp, management = urlsplit(str(record["amqp_url"])), urlsplit(str(record["management_url"]))
    login = Login(unquote(amqp.username or ""), unquote(amqp.password or ""))
    return login, amqp.port or 0, management.port or 0


def _new() -> tuple[Login, int, int]:
    free = ports.choose(None)
    return node_files.new_login(), free.amqp, free.management


def _run(command: list[str], timeout: float, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
