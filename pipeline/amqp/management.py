"""RabbitMQ's management HTTP API, as much of it as is needed. In: settings. Out: topology values, `BrokerError`s.

Everything is of the one virtual host in `amqp_url`. Counts are RabbitMQ's own statistics, up to 5 s old.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx2

from pipeline.addresses import addresses_of, vhost_of, without_login
from pipeline.amqp.consumer_tag import name_of
from pipeline.amqp.nodes import first_to_answer
from pipeline.errors import (
    AccessRefused,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    ObjectMissing,
    VirtualHostMissing,
)
from pipeline.settings import Settings
from pipeline.topology.model import Binding, Exchange, Policy, Queue

_BAD_LOGIN = {"Login failed", "Not_Authorized"}  # the words of 3.x and of 4.x
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue as the broker has it. `held` counts all messages in it, those on their way to a dead-letter queue too.

    A queue that is not `led` has lost its leader, and what is counted says nothing.
    """

    queue: Queue
    exclusive: bool
    consumers: int
    ready: int
    unacked: int
    held: int
    led: bool = True


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """Messages that went into a queue, and that consumers acked, since the broker started."""

    published: int
    acked: int


class Management:
    """A client of the management API, of any node that answers; an async context manager.

    Every method raises BrokerUnavailable when nobody answers or what answers is no management API,
    AuthenticationFailed or AccessRefused when the user may not, VirtualHostMissing when the virtual host is not there.
    """

    def __init__(self, settings: Settings) -> None:
        nodes = [urlsplit(each) for each in addresses_of(settings.management_url)]
        if not all(node.hostname for node in nodes):
            raise BrokerUnavailable("the address of RabbitMQ's management API is unknown; set PIPELINE_MANAGEMENT_URL")
        self._url = without_login(settings.management_url)
        self._nodes = addresses_of(self._url)
        self._node = ""  # the one that answers us: what belongs together is asked of one
        self.vhost = vhost_of(settings.amqp_url)
        self._user = unquote(nodes[0].username or "guest")
        try:
            for each in self._nodes:
                httpx2.URL(each)
            self._client = httpx2.AsyncClient(
                auth=(self._user, unquote(nodes[0].password or "guest")),
                timeout=httpx2.Timeout(30.0, connect=settings.connect_timeout),
                # A proxy can't reach our loopback.
                trust_env=not all(node.hostname in _LOOPBACK for node in nodes),
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise ConfigurationError(f"PIPELINE_MANAGEMENT_URL {self._url!r} can't be used: {error}") from error

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def overview(self) -> dict[str, Any]:
        """RabbitMQ's own overview: `rabbitmq_version`, `cluster_name` and more."""
        return dict(await self._get("overview"))

    async def exchanges(self) -> list[Exchange]:
        """All exchanges, those RabbitMQ brings along too."""
        return [
            Exchange(
                item["name"],
                item["type"],
                durable=item["durable"],
                auto_delete=item["auto_delete"],
                internal=item["internal"],
                arguments=_table(item["arguments"]),
            )
            for item in await self._get(f"exchanges/{self._vhost}")
        ]

    async def queues(self) -> list[QueueState]:
        """All queues."""
        columns = (
            "name,durable,auto_delete,exclusive,arguments,type,leader,consumers,"
            "messages,messages_ready,messages_unacknowledged,messages_dlx"
        )
        items = await self._get(f"queues/{self._vhost}", columns=columns)
        return [_queue_state(item) for item in items]

    async def queue(self, name: str) -> QueueState:
        """One queue.

        Raises: ObjectMissing when there is none of that name.
        """
        return _queue_state(await self._get(f"queues/{self._vhost}/{_quoted(name)}"))

    async def queue_counts(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(ready, unacked) by name, of those of `names` that exist; up to 5 s old."""
        wanted = set(names)
        states = await self.queues()
        return {state.queue.name: (state.ready, state.unacked) for state in states if state.queue.name in wanted}

    async def held(self, names: Iterable[str]) -> dict[str, tuple[int | None, bool]]:
        """(messages, whether all of its members are there) of each queue; up to 5 s old.

        The messages are all, those on their way to a dead-letter queue too; None where nobody knows: there is no such
        queue, it has no leader, or has not been counted since it has one.
        """
        items = await self._get(f"queues/{self._vhost}", columns="name,type,leader,members,online,messages")
        found = {
            item["name"]: (
                item.get("messages") if _led(item) else None,
                len(item.get("online", ())) == len(item.get("members", ())),
            )
            for item in items
        }
        return {name: found.get(name, (None, False)) for name in names}

    async def counters(self) -> dict[str, QueueCounters]:
        """What went through each queue since the broker started, by queue name."""
        items = await self._get(f"queues/{self._vhost}", columns="name,message_stats.publish,message_stats.ack")
        stats = ((item["name"], item.get("message_stats", {})) for item in items)
        return {name: QueueCounters(each.get("publish", 0), each.get("ack", 0)) for name, each in stats}

    async def consumers(self) -> set[tuple[str, str]]:
        """(consumer's name, queue) of all consumers, by the broker's statistics: some seconds old.

        Consumers of a queue that was deleted stay in the list as long as their channel is open (seen on 3.10.8).
        """
        items = await self._get(f"consumers/{self._vhost}")
        there = {item["name"] for item in await self._get(f"queues/{self._vhost}", columns="name")}
        found = {(name_of(item["consumer_tag"]), item["queue"]["name"]) for item in items}
        return {(name, queue) for name, queue in found if queue in there}

    async def bindings(self) -> list[Binding]:
        """All bindings, the implicit ones of the default exchange too."""
        return [
            Binding(
                item["source"],
                item["destination"],
                item["routing_key"],
                item["destination_type"],
                _table(item["arguments"]),
            )
            for item in await self._get(f"bindings/{self._vhost}")
        ]

    async def policies(self) -> list[Policy]:
        """All policies."""
        return [
            Policy(item["name"], item["pattern"], _table(item["definition"]), item["apply-to"], item["priority"])
            for item in await self._get(f"policies/{self._vhost}")
        ]

    async def put_policy(self, policy: Policy) -> None:
        """Create the policy, or replace the one of the same name.

        Raises: ConfigurationError when RabbitMQ knows no such setting or the value is not possible.
        """
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "apply-to": policy.apply_to,
            "priority": policy.priority,
        }
        await self._call("PUT", f"policies/{self._vhost}/{_quoted(policy.name)}", body)

    async def delete_policy(self, name: str) -> None:
        """Delete the policy.

        Raises: ObjectMissing when there is none of that name.
        """
        await self._call("DELETE", f"policies/{self._vhost}/{_quoted(name)}")

    @property
    def _vhost(self) -> str:
        return _quoted(self.vhost)

    async def _get(self, path: str, **query: str) -> Any:
        response = await self._call("GET", path, query=query)
        try:
            return response.json()
        except ValueError as error:
            raise _no_api(self._url, f"answered GET /api/{path} with something that is not JSON") from error

    async def _call(
        self, method: str, path: str, body: object = None, query: dict[str, str] | None = None
    ) -> httpx2.Response:
        async def ask(node: str) -> httpx2.Response:
            url = f"{node.rstrip('/')}/api/{path}"
            try:
                response = await self._client.request(method, url, json=body, params=query or None)
            except httpx2.TimeoutException as error:
                raise _no_api(node, "did not answer in time") from error
            except httpx2.HTTPError as error:
                raise _no_api(node, f"can't be reached: {str(error) or type(error).__name__}") from error
            if response.is_success:
                self._node = node
                return response
            if response.status_code == 400:
                raise ConfigurationError(f"RabbitMQ refused {unquote(path)}: {_reason(response)}")
            raise self._refusal(response, node, method, path)

        # Whatever is asked may be asked twice: nothing counts, and what is put or deleted is named.
        return await first_to_answer(self._url, self._nodes, ask, self._node)

    def _refusal(self, response: httpx2.Response, node: str, method: str, path: str) -> BrokerError:
        reason = _reason(response)
        if reason is None:
            return _no_api(node, f"answered {method} /api/{path} with status {response.status_code}")
        what = f"the management API at {node} refused {method} /api/{path}: {reason}"
        if response.status_code == 401 and reason in _BAD_LOGIN:
            return AuthenticationFailed(
                f"the management API at {node} refused user {self._user!r} or its password; "
                "check PIPELINE_AMQP_URL, or set PIPELINE_MANAGEMENT_URL"
            )
        if response.status_code in (401, 403) and "virtual host" in reason:
            return VirtualHostMissing(f"{what} (virtual host {self.vhost!r})")
        if response.status_code in (401, 403):
            return AccessRefused(f"{what}; user {self._user!r} needs the tag policymaker or above")
        if response.status_code == 404 and path.count("/") == 1:
            return VirtualHostMissing(
                f"virtual host {self.vhost!r} does not exist at {node}; create it or name another in PIPELINE_AMQP_URL"
            )
        if response.status_code == 404:
            return ObjectMissing(f"{node} has no {unquote(path)}")
        return BrokerUnavailable(f"{what} (status {response.status_code})")


def _no_api(where: str, what: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the management API at {where} {what}; "
        "is the plugin rabbitmq_management on, and is PIPELINE_MANAGEMENT_URL right?"
    )


def _reason(response: httpx2.Response) -> str | None:
    """Why RabbitMQ refused; None when it was not RabbitMQ that answered."""
    try:
        # Erlang terms in it are written for a browser, over several lines.
        return " ".join(unescape(str(response.json().get("reason", ""))).split())
    except (ValueError, AttributeError):
        return None


def _queue_state(item: dict[str, Any]) -> QueueState:
    arguments = _table(item["arguments"])
    # `type` is there even when no argument said so: the virtual host's default queue type.
    arguments.setdefault("x-queue-type", item.get("type", "classic"))
    queue = Queue(item["name"], item["durable"], item["auto_delete"], arguments)
    # A queue that was declared a moment ago has no statistics yet.
    ready, unacked = item.get("messages_ready", 0), item.get("messages_unacknowledged", 0)
    held = max(item.get("messages", 0), ready + unacked + item.get("messages_dlx", 0))
    return QueueState(queue, bool(item.get("exclusive")), item.get("consumers", 0), ready, unacked, held, _led(item))


def _led(item: dict[str, Any]) -> bool:
    return item.get("type") != "quorum" or bool(item.get("leader"))


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}  # an empty Erlang table arrives as []


def _quoted(name: str) -> str:
    return quote(name, safe="")
