"""Checked data → values. In: the merged plain data of all files. Out: exchanges, events, queues, bindings, policies.

Everything that needs more than one key to judge is judged here and in `resolve_subscriptions`: names that must be
declared somewhere, defaults that hang on other keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from pipeline.topology.findings import Findings, Path, did_you_mean
from pipeline.topology.model import Binding, EventType, Exchange, Policy, Queue
from pipeline.topology.queue_rules import FRIENDLY, POLICY_SETTINGS, queue_arguments
from pipeline.topology.routing import BUILTIN_EXCHANGES

Data = Mapping[str, Any]
POLICY_PREFIX = "pipeline."  # our own policies: pipeline.<queue>


def resolve_exchanges(data: Data, findings: Findings) -> dict[str, Exchange]:
    """The declared exchanges."""
    exchanges = {}
    for name, entry in data.items():
        path = ("exchanges", name)
        check_name(name, path, findings)
        arguments = dict(entry.get("arguments", {}))
        if alternate := entry.get("alternate_exchange"):
            if "alternate-exchange" in arguments:
                findings.error((*path, "arguments", "alternate-exchange"), "is there twice", key=True)
            check_exchange(alternate, (*path, "alternate_exchange"), data, findings)
            arguments["alternate-exchange"] = alternate
        flags = {flag: entry[flag] for flag in ("durable", "auto_delete", "internal") if flag in entry}
        exchanges[name] = Exchange(name, entry.get("type", "topic"), arguments=arguments, **flags)
    return exchanges


def resolve_events(data: Data, exchanges: Mapping[str, Exchange], findings: Findings) -> dict[str, EventType]:
    """The declared event types."""
    events = {}
    for name, entry in data.items():
        path = ("events", name)
        exchange = default_exchange(entry, path, exchanges, findings)
        if "model" in entry and "schema" in entry:
            findings.error((*path, "schema"), "can't stand beside model", "keep one of them", key=True)
        schema = "" if findings.broken((*path, "schema")) else entry.get("schema", "")
        events[name] = EventType(
            name,
            exchange,
            entry.get("routing_key", name),
            model=entry.get("model", ""),
            schema=_schema_file(schema, (*path, "schema"), findings) if schema else "",
            compress_over=entry.get("compress_over", 0),
        )
    return events


def resolve_queues(data: Data, findings: Findings) -> dict[str, Queue]:
    """The plain queues."""
    queues = {}
    for name, entry in data.items():
        path = ("queues", name)
        check_name(name, path, findings)
        if findings.broken(path):
            queues[name] = Queue(name)
            continue
        arguments = queue_arguments(entry, path, findings)
        queues[name] = Queue(name, entry.get("durable", True), entry.get("auto_delete", False), arguments)
    return queues


def check_dead_letters(
    queues: Mapping[str, Queue], exchanges: Mapping[str, Exchange], every_queue: Iterable[str], findings: Findings
) -> None:
    """Refuse dead-letter targets of plain queues that are declared nowhere: RabbitMQ would drop messages silently."""
    names = list(every_queue)
    for queue in queues.values():
        exchange = queue.arguments.get("x-dead-letter-exchange")
        key = queue.arguments.get("x-dead-letter-routing-key", queue.name)
        if exchange:
            check_exchange(exchange, _argument(queue, "dead_letter_exchange", findings), exchanges, findings)
        elif exchange is not None and key not in names:
            where = _argument(queue, "dead_letter_routing_key", findings)
            findings.error(where, f"no queue {key} is declared", did_you_mean(key, names))


def _argument(queue: Queue, key: str, findings: Findings) -> Path:
    """Where the file says it: under its friendly name or among the raw arguments."""
    friendly: Path = ("queues", queue.name, key)
    return friendly if friendly in findings.values else ("queues", queue.name, "arguments", FRIENDLY[key])


def resolve_bindings(
    data: list[Any],
    exchanges: Mapping[str, Exchange],
    queues: Iterable[str],
    fed: Mapping[str, str],
    findings: Findings,
) -> list[Binding]:
    """The plain bindings. `queues` may be bound; `fed` are a subscription's retry and dead-letter queues, by owner."""
    names = list(queues)
    bindings = []
    for index, entry in enumerate(data):
        path: Path = ("bindings", index)
        if findings.broken(path):
            continue
        check_exchange(entry["exchange"], (*path, "exchange"), exchanges, findings)
        queue, target = entry.get("queue"), entry.get("to_exchange")
        if (queue is None) == (target is None):
            findings.error(path, "must name either queue or to_exchange", key=True)
        elif target is not None:
            check_exchange(target, (*path, "to_exchange"), exchanges, findings)
        elif queue in fed:
            message = f"subscription {fed[queue]} itself feeds {queue}"
            findings.error((*path, "queue"), message, f"bind the queue {fed[queue]}")
        elif queue not in names:
            findings.error((*path, "queue"), f"no queue {queue} is declared", did_you_mean(queue, names))
        destination_type = "queue" if target is None else "exchange"
        destination = queue if target is None else target
        arguments = entry.get("arguments", {})
        bindings.append(
            Binding(entry["exchange"], destination or "", entry.get("routing_key", ""), destination_type, arguments)
        )
    return bindings


def resolve_policies(data: Data, owned: Mapping[str, str], findings: Findings) -> dict[str, Policy]:
    """The plain policies. `owned`: the subscription of each queue whose one policy is that subscription's."""
    policies = {}
    for name, entry in data.items():
        path = ("policies", name)
        if name.startswith(POLICY_PREFIX):
            findings.error(path, f"names beginning {POLICY_PREFIX} are the subscriptions' own", "rename it", key=True)
        if findings.broken(path):
            continue
        policy = Policy(
            name, entry["pattern"], entry["definition"], entry.get("apply_to", "queues"), entry.get("priority", 0)
        )
        policies[name] = policy
        check_definition(policy.definition, (*path, "definition"), findings)
        try:
            expression = re.compile(policy.pattern)
        except re.error as error:
            findings.error((*path, "pattern"), f"is no regular expression: {error}")
            continue
        caught = next((queue for queue in owned if expression.search(queue)), "")
        if caught and policy.apply_to in ("queues", "all", "quorum_queues"):
            message = (
                f"matches queue {caught}; RabbitMQ applies one policy to a queue, and that one is its subscription's"
            )
            hint = f"narrow the pattern, or put the definition under subscriptions.{owned[caught]}.policy"
            findings.error((*path, "pattern"), message, hint)
    return policies


def check_definition(definition: Data, path: Path, findings: Findings) -> None:
    """Warn of a policy's settings that look misspelt; plugins bring some of their own."""
    for key in definition:
        near = [] if key in POLICY_SETTINGS else get_close_matches(key, POLICY_SETTINGS, n=1, cutoff=0.8)
        if near:
            findings.warn((*path, key), "no such setting is known", f"did you mean {near[0]}?")


def check_name(name: str, path: Path, findings: Findings) -> None:
    """Refuse names RabbitMQ keeps for itself."""
    if name.startswith("amq."):
        findings.error(path, "names beginning amq. are RabbitMQ's own", "rename it", key=True)


def check_exchange(name: str, path: Path, exchanges: Iterable[str], findings: Findings) -> None:
    """Refuse an exchange that is neither declared nor built in."""
    declared = list(exchanges)
    if name not in declared and name not in BUILTIN_EXCHANGES:
        findings.error(path, f"no exchange {name} is declared", did_you_mean(name, declared))


def default_exchange(entry: Data, path: Path, exchanges: Mapping[str, Exchange], findings: Findings) -> str:
    """The entry's exchange, or the only one there is."""
    name = entry.get("exchange", "")
    if name:
        check_exchange(name, (*path, "exchange"), exchanges, findings)
    elif len(exchanges) == 1:
        name = next(iter(exchanges))
    if name:
        if name in exchanges and exchanges[name].internal and path[0] == "events":
            where = (*path, "exchange") if "exchange" in entry else path
            findings.error(where, f"exchange {name} is internal: nobody can publish to it", key=where == path)
        return str(name)
    if not findings.wrong((*path, "exchange")) and not findings.wrong(path):
        few = "no exchange is declared" if not exchanges else f"{len(exchanges)} exchanges are declared"
        hint = "add one under exchanges" if not exchanges else f"exchange: {' | '.join(list(exchanges)[:8])}"
        findings.error(path, f"exchange is missing and {few}", hint, key=True)
    return ""


def _schema_file(text: str, path: Path, findings: Findings) -> str:
    file = FilePath(findings.place(path).file).parent / text
    try:
        schema = json.loads(file.read_bytes())
    except OSError as error:
        findings.error(path, f"{file} can't be read: {error.strerror or error}", "the path is relative to this file")
    except (ValueError, RecursionError) as error:
        findings.error(path, f"{file} is not JSON: {error}")
    else:
        if problem := _schema_problem(schema):
            findings.error(path, f"{file} is no JSON Schema: {problem}")
    return str(file.absolute())


def _schema_problem(schema: Any) -> str:
    import jsonschema_rs

    if not isinstance(schema, dict | bool):
        return "it must be an object"
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        return str(error.message)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return str(error)
    return ""
