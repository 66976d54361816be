"""TCP ports of this machine. In: the ports remembered from last time. Out: a set that is free now."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from pipeline.broker.address import LOOPBACK


@dataclass(frozen=True, slots=True)
class Ports:
    """The five loopback ports of a private node."""

    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int

    def are_free(self) -> bool:
        """Whether nobody listens on any of them."""
        return all(is_free(port) for port in asdict(self).values())


def remembered(record: Mapping[str, object]) -> Ports | None:
    """The ports of `node.json`, None when it has none that can be used."""
    saved = record.get("ports")
    if not isinstance(saved, Mapping):
        return None
    try:
        return Ports(**{name: int(port) for name, port in saved.items()})
    except (TypeError, ValueError):
        return None


def choose(last: Ports | None) -> Ports:
    """The last ports when all are free, so that a bookmark stays good; otherwise five others."""
    if last is not None and last.are_free():
        return last
    with ExitStack() as held:  # all five are held until all are known, so no number comes twice
        probes = [held.enter_context(socket.socket()) for _ in range(5)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return Ports(*(int(probe.getsockname()[1]) for probe in probes))


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        # Servers set it too: a connection in TIME_WAIT is no reason to move.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
