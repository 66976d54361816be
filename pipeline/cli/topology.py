"""`pipeline topology`: look at the topology files, compare them with the broker, bring the broker to them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import problem_as_json, run_async
from pipeline.errors import ConfigurationError, Problem, TopologyError
from pipeline.settings import Settings, load_settings
from pipeline.topology import model
from pipeline.topology.plan import Plan

app = typer.Typer(no_args_is_help=True, help="The topology files and the broker.")

Topology = Annotated[
    Path | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY", show_default="topology")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


class Format(StrEnum):
    """How `show` draws."""

    tree = "tree"
    mermaid = "mermaid"
    svg = "svg"
    json = "json"


@app.command()
def validate(topology: Topology = None, as_json: AsJson = False) -> None:
    """Read the files and report every problem at once. Exit codes: 0 valid, 2 not."""
    from pipeline.topology.expand import expand
    from pipeline.topology.load import load_topology

    path = _settings(topology).topology
    try:
        loaded = load_topology(path)
    except TopologyError as error:
        if not as_json:
            raise
        _print_json({"valid": False, "problems": [problem_as_json(problem) for problem in error.problems]})
        raise typer.Exit(error.exit_code) from error
    if as_json:
        _print_json({"valid": True, "problems": [problem_as_json(problem) for problem in loaded.warnings]})
        return
    _warn(loaded.warnings)
    objects = expand(loaded.topology)
    typer.echo(
        f"{path} is valid: {_count(len(loaded.topology.events), 'event')}, "
        f"{_count(len(loaded.topology.subscriptions), 'subscription')}, {_count(len(objects.queues), 'queue')}, "
        f"{_count(len(objects.bindings), 'binding')}"
    )


@app.command()
def show(
    topology: Topology = None,
    form: Annotated[Format, typer.Option("--format", help="tree, mermaid, svg or json.")] = Format.tree,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Draw the topology."""
    drawn = _load(topology)
    if form is Format.tree and output is None:
        _print_tree(drawn)
        return
    text = _drawing(form, drawn)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} can't be written: {error.strerror or error}") from error
    typer.echo(f"wrote {output}", err=True)


@app.command()
def plan(topology: Topology = None, as_json: AsJson = False) -> None:
    """Compare files and broker. Exit codes: 0 nothing to do, 2 changes, 3 something only destruction could change."""
    differences = _compare(topology)
    if as_json:
        _print_json(differences.to_json())
    else:
        from pipeline.cli.topology_report import print_plan

        print_plan(differences)
    raise typer.Exit(differences.exit_code)


@app.command()
def apply(
    topology: Topology = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove bindings and empty retry queues the files no longer name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the broker to the files. Exit codes: 0 done, 2 something left to prune, 3 something needs destruction."""
    from pipeline.amqp.apply import apply_plan
    from pipeline.cli.common import Progress
    from pipeline.event_log.catching_up import catching_up

    differences = _compare(topology)
    settings = _settings(topology)
    with Progress("catching up", None, quiet=as_json) as progress:
        catch_up = catching_up(settings, _load(topology, quiet=True), lambda _, done: progress.advance(done))
        applied = run_async(apply_plan(settings, differences, prune, catch_up))
    if as_json:
        _print_json(applied.to_json())
    else:
        from pipeline.cli.topology_report import print_applied

        print_applied(applied, nothing_to_do=not differences.exit_code)
    raise typer.Exit(applied.exit_code)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a topology file, for editors."""
    from pipeline.topology.schema import json_schema

    _print_json(json_schema())


def _compare(topology: Path | None) -> Plan:
    from pipeline.amqp.live import live_objects
    from pipeline.topology.expand import expand
    from pipeline.topology.plan import plan as compare

    desired = expand(_load(topology))
    return compare(desired, run_async(live_objects(_settings(topology))))


def _load(topology: Path | None, quiet: bool = False) -> model.Topology:
    from pipeline.topology.load import load_topology

    loaded = load_topology(_settings(topology).topology)
    if not quiet:
        _warn(loaded.warnings)
    return loaded.topology


def _settings(topology: Path | None) -> Settings:
    return load_settings(topology=None if topology is None else str(topology))


def _drawing(form: Format, topology: model.Topology) -> str:
    from pipeline.topology.as_json import topology_json
    from pipeline.topology.draw_mermaid import mermaid
    from pipeline.topology.draw_svg import svg
    from pipeline.topology.draw_tree import tree, tree_text

    match form:
        case Format.tree:
            return tree_text(tree(topology)) + "\n"
        case Format.mermaid:
            return mermaid(topology)
        case Format.svg:
            return svg(topology)
        case Format.json:
            return jsonlib.dumps(topology_json(topology), indent=2, ensure_ascii=False) + "\n"


def _print_tree(topology: model.Topology) -> None:
    from pipeline.cli.topology_report import print_tree
    from pipeline.topology.draw_tree import tree

    print_tree(tree(topology))


def _warn(warnings: Sequence[Problem]) -> None:
    for problem in warnings:
        typer.secho(str(problem), fg="yellow", err=True)


def _print_json(data: dict[str, object]) -> None:
    typer.echo(jsonlib.dumps(data, indent=2, ensure_ascii=False))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
