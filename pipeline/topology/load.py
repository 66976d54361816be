"""Files → `Topology`. In: a folder (its *.yaml and *.yml, merged) or one file. Out: `Loaded`, or every problem at once.

bytes ─► yaml_tree ─► shape (against keys) ─► merge ─► resolve ─► checks
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Problem, TopologyError
from pipeline.topology.delay import check_delay_names, resolve_delay
from pipeline.topology.event_log import check_log_name, check_start, log_bindings, log_queue, resolve_event_log
from pipeline.topology.expand import expand, subscription_queues
from pipeline.topology.findings import Findings, Place
from pipeline.topology.keys import FILE
from pipeline.topology.model import Topology
from pipeline.topology.partitions import as_one_queue
from pipeline.topology.resolve import (
    check_dead_letters,
    resolve_bindings,
    resolve_events,
    resolve_exchanges,
    resolve_policies,
    resolve_queues,
)
from pipeline.topology.resolve_subscriptions import check_derived_names, resolve_subscriptions
from pipeline.topology.routing import queues_reached
from pipeline.topology.schedules import check_scheduler_name, resolve_schedules
from pipeline.topology.shape import WRONG, read_shape
from pipeline.topology.yaml_tree import YamlError, parse

MAX_FILE_BYTES = 1024 * 1024  # a topology of a thousand subscriptions is a tenth of it
_SECTIONS = ("exchanges", "events", "subscriptions", "queues", "policies", "schedules")
_ONCE = ("delay", "event_log")  # sections without names: one file has them


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid topology, and what is doubtful about it."""

    topology: Topology
    warnings: tuple[Problem, ...] = ()


def load_topology(path: Path) -> Loaded:
    """The topology of a folder or a file.

    Raises: TopologyError with every problem found.
    """
    return _load([(str(file), _read(file)) for file in _files(path)])


def load_text(text: str, file: str = "<text>") -> Loaded:
    """The topology that is written in `text`; `file` names it in problems, and its folder is where schemas are sought.

    Raises: TopologyError with every problem found.
    """
    return _load([(file, text)])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        hint = "name another place with --topology or PIPELINE_TOPOLOGY"
        raise TopologyError([Problem("no such file or folder", str(path), hint=hint)])
    # Names that begin with a dot are editors' locks and backups.
    files = [file for file in sorted(path.iterdir()) if file.suffix in (".yaml", ".yml") and file.name[0] != "."]
    if not files:
        raise TopologyError([Problem("holds no *.yaml file", str(path))])
    return files


def _read(file: Path) -> str | Problem:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return Problem(f"can't be read: {error.strerror or error}", str(file))
    if len(data) > MAX_FILE_BYTES:
        return Problem("is larger than 1 MiB", str(file), hint="split it; all files of the folder are merged")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        return Problem(f"byte 0x{data[error.start]:02X} is not UTF-8", str(file), line, column, hint="save it as UTF-8")


def _load(sources: Iterable[tuple[str, str | Problem]]) -> Loaded:
    findings = Findings()
    merged: dict[str, Any] = {section: {} for section in _SECTIONS} | {"bindings": []}
    names: list[str] = []
    readable = True
    for file, text in sources:
        names.append(file)
        if isinstance(text, Problem):
            findings.problems.append(text)
            readable = False
        else:
            readable &= _merge_file(file, text, merged, findings)
    # What an unreadable file declares is unknown, so nothing can be said of names that seem to be missing.
    if readable:
        topology = _resolve(merged, tuple(names), findings)
        if not findings.errors:
            _warn(topology, findings)
            return Loaded(topology, tuple(findings.warnings))
    raise TopologyError(findings.sorted())


def _merge_file(file: str, text: str, merged: dict[str, Any], findings: Findings) -> bool:
    """Add one file's data to `merged`; False when it can't be read as YAML."""
    try:
        root, duplicates = parse(text, file)
    except YamlError as error:
        findings.error(error.path, error.message, error.hint, at=error.place)
        return False
    for duplicate in duplicates:
        findings.error(duplicate.path, duplicate.message, duplicate.hint, at=duplicate.place)
    if root is None:
        findings.error((), "the file is empty", "it must begin with version: 1", at=Place(file, 1, 1))
        return True
    found = Findings()
    data = read_shape(FILE, root, (), found)
    findings.absorb(found, bindings=len(merged["bindings"]))
    if data is WRONG:
        return True
    merged["bindings"] += data.get("bindings", [])
    for section in _ONCE:
        if section in data and section in merged:
            findings.clash((section,), found.keys[section,])
        elif section in data:
            merged[section] = data[section]
    for section in _SECTIONS:
        for name, entry in data.get(section, {}).items():
            if name in merged[section]:
                findings.clash((section, name), found.keys[section, name])
            else:
                merged[section][name] = entry
    return True


def _resolve(merged: dict[str, Any], files: tuple[str, ...], findings: Findings) -> Topology:
    exchanges = resolve_exchanges(merged["exchanges"], findings)
    events = resolve_events(merged["events"], exchanges, findings)
    subscriptions = resolve_subscriptions(merged["subscriptions"], exchanges, events, findings)
    queues = resolve_queues(merged["queues"], findings)
    made = {name: tuple(subscription_queues(subscription)) for name, subscription in subscriptions.items()}
    owners = check_derived_names(made, queues, findings)
    check_dead_letters(queues, exchanges, [*queues, *owners], findings)
    fed = {queue: owner for queue, owner in owners.items() if queue != owner}
    unordered = [name for name, subscription in subscriptions.items() if not subscription.order_by]
    bindings = resolve_bindings(merged["bindings"], exchanges, [*queues, *unordered], fed, findings)
    policies = resolve_policies(merged["policies"], owners, findings)
    delay = resolve_delay(merged.get("delay"), findings)
    schedules = resolve_schedules(merged["schedules"], events, findings)
    check_scheduler_name(schedules, {"queues": queues, "subscriptions": subscriptions}, findings)
    log = resolve_event_log(merged.get("event_log"), exchanges, findings)
    check_log_name(log, queues, owners, findings)
    check_start(subscriptions, log, events, [*queues, *owners], findings)
    if log is not None:
        queues[log.name] = log_queue(log)
        bindings += log_bindings(log, exchanges, events.values())
    topology = Topology(
        exchanges,
        events,
        subscriptions,
        queues,
        tuple(bindings),
        policies,
        files,
        delay=delay,
        schedules=schedules,
        event_log=log,
    )
    check_delay_names(topology, [*queues, *owners], findings)
    return topology


def _warn(topology: Topology, findings: Findings) -> None:
    """Note what is allowed but hardly meant."""
    bindings = as_one_queue(topology, expand(topology).bindings)
    reached = {event.name: queues_reached(event, topology.exchanges, bindings) for event in topology.events.values()}
    for name, queues in reached.items():
        if not queues & set(topology.subscriptions):
            hint = "publishing it fails" if not queues else "only plain queues get it"
            findings.warn(("events", name), "no subscription takes it", hint)
    everything = set().union(*reached.values())
    for name, subscription in topology.subscriptions.items():
        path = ("subscriptions", name)
        if name not in everything:
            findings.warn(path, "no declared event reaches it", "add events or routing_keys")
        if not subscription.dead_letter:
            findings.warn((*path, "dead_letter"), "failed events are dropped after the last attempt")
