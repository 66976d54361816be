"""`pipeline keys`: API keys of the gateway. In: arguments. Out: a key, shown once; lists without secrets."""

from __future__ import annotations

import json as _json
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="API keys of the gateway.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What it may do: publish:order.*, read:payments, read:*; again for more."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people.")],
    scope: Scope = None,
    everything: Annotated[bool, typer.Option("--all", help="It may publish and read everything.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: only its hash is kept. What it may do has to be said: --scope, or --all."""
    from pipeline.cli.common import extra_needed, run_async
    from pipeline.errors import ConfigurationError

    if everything == bool(scope):
        raise ConfigurationError(
            "say what the key may do: --scope publish:order.* and the like, or --all for everything; one of both"
        )

    with extra_needed("gateway"):
        from pipeline.gateway.api_keys import new_key
        from pipeline.gateway.scopes import EVERYTHING

    stored, key = new_key(name, list(EVERYTHING if everything else scope or ()))
    run_async(_with_store(lambda store: store.add_key(stored)))
    if as_json:
        typer.echo(_json.dumps({**_shown(stored), "key": key}))
        return
    typer.echo(key)
    typer.echo(f"id {stored.id}, may {', '.join(stored.scopes)}; keep it now, it is not shown again", err=True)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Show all keys, without their secrets."""
    from pipeline.cli.common import run_async

    keys = run_async(_with_store(lambda store: store.keys()))
    if as_json:
        typer.echo(_json.dumps({"keys": [_shown(key) for key in keys]}))
        return
    for key in keys:
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}Z" if key.revoked_at else "valid"
        typer.echo(f"{key.id}  {key.created_at:%Y-%m-%d %H:%M}Z  {state:24}  {key.name}  {' '.join(key.scopes)}")
    if not keys:
        typer.echo("there are no keys; make one with `pipeline keys create NAME --scope publish:order.*`")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="Its id, as `list` shows it.")], as_json: AsJson = False) -> None:
    """Take a key back; gateways refuse it within 2 seconds. Exit codes: 0 revoked; 1 no valid key has this id."""
    from pipeline.cli.common import run_async

    done = run_async(_with_store(lambda store: store.revoke_key(key_id)))
    if as_json:
        typer.echo(_json.dumps({"id": key_id, "revoked": done}))
    else:
        typer.echo(f"{key_id} is revoked" if done else f"no valid key has the id {key_id!r}; see `pipeline keys list`")
    raise typer.Exit(0 if done else 1)


async def _with_store(use: Any) -> Any:
    from pipeline.settings import load_settings
    from pipeline.store.producer import ProducerStore

    store = await ProducerStore.open(load_settings().producer_database_url)
    try:
        return await use(store)
    finally:
        await store.close()


def _shown(key: Any) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": key.created_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }
