"""RabbitMQ in Docker, from the project's `compose.yaml`. In: an engine that runs. Out: a broker's address."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.broker import node_files, ports, probe
from pipeline.broker.address import Address, Login, read_record, write_record
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
    environment = {
        **os.environ,
        "PIPELINE_RABBITMQ_USER": login.user,
        "PIPELINE_RABBITMQ_PASSWORD": login.password,
        "PIPELINE_RABBITMQ_PORT": str(amqp),
        "PIPELINE_RABBITMQ_MANAGEMENT_PORT": str(management),
    }
    done = _run([*_compose(compose_file, state_dir), "up", "--detach", "--wait", SERVICE], UP_TIMEOUT, environment)
    if done.returncode:
        raise BrokerUnavailable(f"`docker compose up {SERVICE}` failed: {' '.join(done.stderr.split())[-500:]}")
    management_url = login.at("http", management)
    said = probe.overview(management_url)
    if said is None:
        down = " ".join([*_compose(compose_file, state_dir), "down", "--volumes"])
        raise BrokerUnavailable(
            "RabbitMQ in Docker refuses our login: its volume was made with another one; "
            f"`{down}` removes container and volume with everything in them"
        )
    address = Address(
        amqp_url=login.at("amqp", amqp) + "/%2F",
        management_url=management_url,
        nodename=str(said.get("node", "")),
        version=str(said.get("rabbitmq_version", "")),
    )
    write_record(folder / "node.json", address, docker=str(compose_file.absolute()))
    return address


def stop(state_dir: Path) -> bool:
    """Stop the container that `start` started; its volume stays. False when there was none."""
    record = read_record(state_dir.absolute() / "broker" / "node.json")
    compose_file = record.get("docker")
    if not compose_file:
        return False
    login, *_ = _last(record) or _new()
    environment = {
        **os.environ,
        "PIPELINE_RABBITMQ_USER": login.user,
        "PIPELINE_RABBITMQ_PASSWORD": login.password,
    }
    done = _run([*_compose(Path(str(compose_file)), state_dir), "stop", SERVICE], UP_TIMEOUT, environment)
    return done.returncode == 0


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
