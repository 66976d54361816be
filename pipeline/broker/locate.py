"""Which broker to use. In: environment, machine, state folder. Out: its address, and a word on which it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.broker import installation
from pipeline.errors import BrokerUnavailable


def programs(state_dir: Path, say: Callable[[str], None]) -> installation.Installation:
    """The RabbitMQ programs to start a private node with; unpacked below `state_dir` if the machine has none.

    Raises: BrokerUnavailable naming the ways out when there are none to be had.
    """
    found = installation.find(state_dir.absolute() / "packages")
    if found is None:
        raise BrokerUnavailable("no rabbitmq-server")
    return found
