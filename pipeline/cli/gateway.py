"""`pipeline gateway`: take events over HTTP. In: arguments. Out: a server, until it is told to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Take events over HTTP, and tell what became of them.")

Rate = Annotated[str, typer.Option(help="Requests each caller may send: 1000/second, 5000/minute; none by default.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Everybody may do everything; on loopback only.")]
Waiting = Annotated[int, typer.Option(min=1, help="Events in the outbox; beyond it requests are answered 503.")]
JsonLogs = Annotated[bool | None, typer.Option("--json/--no-json", help="Logs as JSON lines; default: off a terminal.")]


@app.callback()
def group() -> None:
    """Take events over HTTP, and tell what became of them."""


@app.command()
def start(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8080,
    topology: Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")] = None,
    relay: Annotated[bool, typer.Option(help="Publish what is accepted from this process, too.")] = True,
    insecure: Insecure = False,
    jwt_issuer: Annotated[str | None, typer.Option(help="Take JWTs of this issuer.")] = None,
    jwt_audience: Annotated[str | None, typer.Option(help="Take JWTs for this audience.")] = None,
    jwks: Annotated[Path | None, typer.Option(help="File of the issuer's public keys (JWKS).")] = None,
    rate_limit: Rate = "",
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 4 * 1024 * 1024,
    max_batch: Annotated[int, typer.Option(min=1, help="Events of a request.")] = 1000,
    max_waiting: Waiting = 100_000,
    source: Annotated[str, typer.Option(help="CloudEvents source of events that do not say theirs.")] = "gateway",
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.", envvar="PIPELINE_LOG_LEVEL")
    ] = "info",
    json: JsonLogs = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain: requests in hand are answered, the relay ends its batch.

    Exit codes: 0 drained; 2 configuration, or the address is taken; 5 the producer's database can't be used.
    """
    from pipeline.cli.common import extra_needed, run_async, start_logging
    from pipeline.settings import load_settings

    start_logging(log_level, json)
    with extra_needed("gateway"):
        from pipeline.gateway.parts import Options
        from pipeline.gateway.server import Serving, run_gateway, token_rules

    settings = load_settings(topology=topology)
    options = Options(max_body=max_body, max_batch=max_batch, max_waiting=max_waiting, source=source)
    tokens = token_rules(jwt_issuer, jwt_audience, jwks)
    run_async(run_gateway(settings, Serving(host, port, insecure, relay, rate_limit, tokens, options)))
