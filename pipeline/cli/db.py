"""`pipeline db`: the library's own tables. In: arguments. Out: how each database is, and changed tables."""

from __future__ import annotations

import json as _json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from pipeline.cli.db_prune import prune
from pipeline.errors import PipelineError

app = typer.Typer(no_args_is_help=True, help="The library's own tables in the databases of subscriptions and gateway.")
app.command()(prune)

Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def upgrade(topology: Topology = None, as_json: AsJson = False) -> None:
    """Bring every database to the tables this version needs. Can be run again, and by several at once.

    Exit codes: 0 all are current; 2 configuration, or a database of a later version; 5 a database can't be reached.
    """
    from pipeline.store.migrating import upgrade
    from pipeline.store.revisions import Condition

    def words(state: Any) -> str:
        if state.condition is Condition.CURRENT:
            return f"is current ({state.needed})"
        return f"{state.condition.value} → {state.needed}"

    def fields(state: Any) -> dict[str, Any]:
        return {"was": state.condition.value, "from": state.revision, "to": state.needed}

    raise typer.Exit(_each(topology, upgrade, words, fields, as_json, good=lambda state: True))


@app.command()
def status(topology: Topology = None, as_json: AsJson = False) -> None:
    """Say which tables every database has. Nothing is made or changed.

    Exit codes: 0 all are current, or empty; 1 some need `pipeline db upgrade`; 2 configuration; 5 one can't be reached.
    """
    from pipeline.store.migrating import state
    from pipeline.store.revisions import Condition

    def words(state: Any) -> str:
        hint = "" if good(state) else f", needed is {state.needed}: run `pipeline db upgrade`"
        return f"{state.condition.value} ({state.revision or 'no revision'}){hint}"

    def fields(state: Any) -> dict[str, Any]:
        return {"condition": state.condition.value, "revision": state.revision, "needed": state.needed}

    def good(state: Any) -> bool:
        return state.condition in (Condition.CURRENT, Condition.EMPTY)

    raise typer.Exit(_each(topology, state, words, fields, as_json, good))


def _each(
    topology: str | None,
    act: Callable[[Any], Awaitable[Any]],
    words: Callable[[Any], str],
    fields: Callable[[Any], dict[str, Any]],
    as_json: bool,
    good: Callable[[Any], bool],
) -> int:
    """Do it for every database; one that fails does not keep the others from it. The exit code."""
    from pipeline.cli.common import error_as_json, run_async
    from pipeline.settings import load_settings
    from pipeline.store.migrating import targets
    from pipeline.topology.load import load_topology

    settings = load_settings(topology=topology)
    loaded = load_topology(settings.topology).topology
    shown, code = [], 0
    for target in targets(settings, loaded.subscriptions):
        row = {"database": target.place, "tables": target.family.name, "for": list(target.serves)}
        try:
            found = run_async(_done(act(target)))
        except PipelineError as error:
            code = max(code, error.exit_code)
            row |= error_as_json(error)
            line = f"error: {error}"
        else:
            code = max(code, 0 if good(found) else 1)
            row |= fields(found)
            line = words(found)
        shown.append(row)
        if not as_json:
            typer.echo(f"{target.place} ({target.family.name} tables of {', '.join(target.serves)}): {line}")
    if as_json:
        typer.echo(_json.dumps({"databases": shown}))
    return code


async def _done(act: Awaitable[Any]) -> Any:
    return await act
