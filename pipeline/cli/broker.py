"""`pipeline broker`: the private RabbitMQ node of this folder. In: arguments. Out: where the broker answers."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, replace
from typing import Annotated

import typer

from pipeline.addresses import mask
from pipeline.broker.address import Address
from pipeline.settings import find_state_dir

app = typer.Typer(help="The private RabbitMQ node of this folder, for development and tests.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, passwords included.")]
ShowPassword = Annotated[bool, typer.Option("--show-password", help="Do not mask the password.")]


@app.command()
def start(as_json: AsJson = False, show_password: ShowPassword = False) -> None:
    """Have a broker: PIPELINE_AMQP_URL, a private node, or Docker. Ends when it accepts AMQP."""
    from pipeline.broker.locate import find_broker

    state_dir = find_state_dir(os.environ)
    compose_file = state_dir.parent / "compose.yaml"
    found = find_broker(state_dir, os.environ, lambda words: typer.echo(words, err=True), compose_file)
    if as_json:
        typer.echo(json.dumps({"where": found.where, **asdict(found.address)}))
        return
    typer.echo(f"RabbitMQ accepts connections ({found.where})")
    _print(found.address, show_password)


@app.command()
def stop() -> None:
    """Stop the private node and wait until it is gone. Its data stays."""
    from pipeline.broker.docker import stop as stop_container
    from pipeline.broker.node import Node

    state_dir = find_state_dir(os.environ)
    stopped = Node(state_dir).stop() or stop_container(state_dir)
    typer.echo("stopped" if stopped else "nothing to stop: no private node was running")


@app.command()
def status(as_json: AsJson = False, show_password: ShowPassword = False) -> None:
    """Say whether the private node runs, and where. Exit code 0 when it accepts AMQP, else 1."""
    from pipeline.broker.node import Node

    now = Node(find_state_dir(os.environ)).status()
    if as_json:
        typer.echo(json.dumps(asdict(now)))
    else:
        typer.echo(f"RabbitMQ {now.word}")
        if now.address and now.running:
            _print(now.address, show_password)
        else:
            typer.echo("start it with `pipeline broker start`")
    raise typer.Exit(0 if now.accepting else 1)


@app.command()
def env() -> None:
    """Print `export` lines for a shell: eval "$(pipeline broker env)"."""
    from pipeline.broker.node import Node

    address = Node(find_state_dir(os.environ)).known_address()
    typer.echo(f"export PIPELINE_AMQP_URL={shlex.quote(address.amqp_url)}")
    typer.echo(f"export PIPELINE_MANAGEMENT_URL={shlex.quote(address.management_url)}")


def _print(address: Address, show_password: bool) -> None:
    if not show_password:
        address = replace(address, amqp_url=mask(address.amqp_url), management_url=mask(address.management_url))
    rows = {
        "AMQP": address.amqp_url,
        "management": address.management_url,
        "metrics": address.prometheus_url,
        "version": address.version,
        "process": str(address.pid or ""),
    }
    for name, value in rows.items():
        if value:
            typer.echo(f"  {name:<11} {value}")
    if not show_password:
        typer.echo("  password    `pipeline broker status --show-password`, or `pipeline broker env`")
