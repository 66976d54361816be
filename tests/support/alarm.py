"""A memory alarm on the test session's private node. In: the node. Out: all its publishers blocked, for a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pipeline.broker.node import Node

WATERMARK = 0.4  # of the machine's memory: RabbitMQ's own default, far above what tests take


@asynccontextmanager
async def memory_alarm(node: Node) -> AsyncIterator[None]:
    """No memory may be used by messages: the broker stops to read from every connection that publishes."""
    await rabbitmqctl(node, "set_vm_memory_high_watermark", "0")
    try:
        yield
    finally:
        await rabbitmqctl(node, "set_vm_memory_high_watermark", str(WATERMARK))


async def rabbitmqctl(node: Node, *arguments: str) -> str:
    """Run the broker's own command line against the node, in the node's environment."""
    process = await asyncio.create_subprocess_exec(
        str(node.folder / "server" / "sbin" / "rabbitmqctl"),
        *arguments,
        env=environment(node),
        cwd=node.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


def environment(node: Node) -> dict[str, str]:
    """What the server was started with: its name, its port mapper, its cookie."""
    raw = Path(f"/proc/{node.known_address().pid}/environ").read_text()
    environ = dict(each.split("=", 1) for each in raw.split("\0") if "=" in each)
    # Erlang puts a folder of its own in front, whose programs are not to be started directly.
    environ["PATH"] = environ["PATH"].removeprefix(f"{environ['BINDIR']}:")
    return environ
