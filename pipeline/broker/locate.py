"""Which broker to use. In: environment, machine, state folder. Out: one that answers, and which it is.

The order: `PIPELINE_AMQP_URL`; RabbitMQ on the machine, started as a private node; Docker; the distribution's
packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.addresses import mask
from pipeline.broker import debian, docker, installation, packages, probe, system_package
from pipeline.broker.address import Address, read_record
from pipeline.broker.installation import Installation
from pipeline.broker.node import Node
from pipeline.errors import BrokerUnavailable
from pipeline.settings import load_settings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A broker that accepts AMQP, and where it was found, in words for a user."""

    address: Address
    where: str


def find_broker(state_dir: Path, environ: Mapping[str, str], say: Say, compose_file: Path) -> Found:
    """The first broker of the order that can be had; a private one is started if need be.

    `say` is told of what takes long.

    Raises: BrokerUnavailable naming the ways out when there is none.
    """
    if environ.get("PIPELINE_AMQP_URL"):
        return _configured(environ)
    if running := _running_container(state_dir):
        return running
    if found := installation.find(state_dir.absolute() / "packages"):
        return _private_node(state_dir, found)
    failed: list[str] = []
    if compose_file.exists() and docker.engine_runs():
        say("Starting RabbitMQ in Docker …")
        try:
            return Found(docker.start(state_dir, compose_file), "a container of Docker")
        except BrokerUnavailable as error:
            failed.append(str(error))
    try:
        return _private_node(state_dir, packages.unpack(state_dir.absolute() / "packages", say))
    except debian.UnpackError as error:
        failed.append(str(error))
    try:
        return _private_node(state_dir, system_package.install(say))
    except system_package.InstallError as error:
        failed.append(str(error))
    raise BrokerUnavailable(
        "no RabbitMQ can be had here: install rabbitmq-server (3.10 or newer), start a Docker engine, "
        "or set PIPELINE_AMQP_URL=amqp://user:password@host:5672/vhost. Tried: " + "; ".join(failed)
    )


def programs(state_dir: Path, say: Say) -> Installation:
    """RabbitMQ's programs for a private node: the machine's, else the distribution's packages, unpacked once.

    Raises: BrokerError when neither can be had.
    """
    folder = state_dir.absolute() / "packages"
    return installation.find(folder) or packages.unpack(folder, say)


def _configured(environ: Mapping[str, str]) -> Found:
    settings = load_settings(environ)
    if not probe.accepts_amqp(settings.amqp_url, settings.connect_timeout):
        raise BrokerUnavailable(
            f"no RabbitMQ answers at {mask(settings.amqp_url)}, which PIPELINE_AMQP_URL names; "
            "start it, correct the address, or unset the variable to get a private node"
        )
    return Found(Address(settings.amqp_url, settings.management_url), "PIPELINE_AMQP_URL")


def _running_container(state_dir: Path) -> Found | None:
    record = read_record(state_dir.absolute() / "broker" / "node.json")
    address = Node(state_dir).address()
    if record.get("docker") and address and probe.accepts_amqp(address.amqp_url):
        return Found(address, "a container of Docker, started earlier")
    return None


def _private_node(state_dir: Path, found: Installation) -> Found:
    address = Node(state_dir, found).start()
    origin = (
        "unpacked from the distribution's packages"
        if state_dir.absolute() in found.server.parents
        else ("installed on this machine")
    )
    return Found(address, f"a private node of RabbitMQ {found.version}, {origin}")
