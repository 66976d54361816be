"""Where one run happens. In: a broker's address, subscriptions. Out: a virtual host and a folder, both gone afterwards.

So no run sees another's queues, files or statistics, and the user's own broker is left as it was.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from benchmarks.payload import EVENT_TYPE
from pipeline.amqp.apply import apply_plan
from pipeline.amqp.live import live_objects
from pipeline.broker.address import Address
from pipeline.settings import Settings, load_settings
from pipeline.topology.expand import expand
from pipeline.topology.load import load_topology
from pipeline.topology.plan import plan

PROJECT = Path(__file__).parents[1]
STATE = Path(os.environ.get("PIPELINE_STATE_DIR", PROJECT / ".pipeline")).absolute()
GONE = 60.0  # s a virtual host may take to go
PREFETCH = 2000  # deliveries a consumer holds, ours and aio-pika's
PLAIN_QUEUES = ("classic", "quorum")  # by the name of their type, where a plain queue is measured

_TOPOLOGY = """\
version: 1
exchanges:
  events: {{type: topic}}
events:
  {event}: {{model: "benchmarks.application:OrderPlaced"}}
"""
_EVENT_LOG = "event_log: {exchange: events}\n"
_SUBSCRIPTION = "  {name}: {{events: [{event}], handler: benchmarks.application, prefetch: {prefetch}{more}}}\n"


@dataclass(frozen=True, slots=True)
class Place:
    """A virtual host and a folder. `subscriptions` are declared in it."""

    vhost: str
    amqp_url: str
    management_url: str
    folder: Path
    subscriptions: tuple[str, ...]
    database_url: str  # "{subscription}" in it is replaced

    def environment(self) -> dict[str, str]:
        """For a program that is to work here. It finds `benchmarks`, and nothing else is told of the caller's setup."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
        return {
            **inherited,
            "PYTHONPATH": str(PROJECT),
            "PIPELINE_AMQP_URL": self.amqp_url,
            "PIPELINE_MANAGEMENT_URL": self.management_url,
            "PIPELINE_STATE_DIR": str(self.folder),
            "PIPELINE_TOPOLOGY": str(self.folder / "topology"),
            "PIPELINE_DATABASE_URL": self.database_url,
        }

    def settings(self) -> Settings:
        """The same for this process."""
        return load_settings(self.environment())

    def messages(self) -> int:
        """Messages in all queues, in hand of consumers or not; as old as the broker's statistics (a second or so)."""
        queues: Any = manage(self.management_url, "GET", f"/api/queues/{self.vhost}?columns=messages")
        return sum(queue.get("messages", 0) for queue in queues)


@contextmanager
def place(
    broker: Address,
    subscriptions: Sequence[str] = (),
    queue_type: str = "",
    prefetch: int = PREFETCH,
    database_url: str = "",
    more: str = "",
    event_log: bool = False,
) -> Iterator[Place]:
    """A place with these subscriptions, or one plain queue of this type, bound to the events; deleted afterwards.

    `more` is what the subscriptions say beside, such as ", order_by: type"; `event_log` keeps every event in a stream.
    Results go to SQLite in its folder unless `database_url` says otherwise.
    """
    name = f"bench-{secrets.token_hex(4)}"
    folder = STATE / "bench" / name
    (folder / "topology").mkdir(parents=True)
    amqp_url = urlunsplit(urlsplit(broker.amqp_url)._replace(path=f"/{name}"))
    database_url = database_url or f"sqlite+aiosqlite:///{folder}/{{subscription}}.db"
    here = Place(name, amqp_url, broker.management_url, folder, tuple(subscriptions), database_url)
    try:
        manage(broker.management_url, "PUT", f"/api/vhosts/{name}", {})
        user = quote(unquote(urlsplit(broker.management_url).username or ""), safe="")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        manage(broker.management_url, "PUT", f"/api/permissions/{name}/{user}", everything)
        text = _topology(subscriptions, queue_type, prefetch, more) + (_EVENT_LOG if event_log else "")
        (folder / "topology" / "bench.yaml").write_text(text)
        if subscriptions or queue_type:
            asyncio.run(_apply(here.settings()))
        yield here
    finally:
        _delete_vhost(broker, name)
        shutil.rmtree(folder, ignore_errors=True)


def _delete_vhost(broker: Address, name: str) -> None:
    """Tried again for a while: a busy RabbitMQ may answer 500 when its queues take too long to go, and then they go."""
    deadline = time.monotonic() + GONE
    while True:
        try:
            manage(broker.management_url, "DELETE", f"/api/vhosts/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def _topology(subscriptions: Sequence[str], queue_type: str, prefetch: int, more: str) -> str:
    text = _TOPOLOGY.format(event=EVENT_TYPE)
    if subscriptions:
        text += "subscriptions:\n"
        facts = {"event": EVENT_TYPE, "prefetch": prefetch, "more": more}
        text += "".join(_SUBSCRIPTION.format(name=name, **facts) for name in subscriptions)
    if queue_type:
        text += f"queues:\n  {queue_type}: {{type: {queue_type}}}\n"
        text += f"bindings:\n  - {{exchange: events, queue: {queue_type}, routing_key: {EVENT_TYPE}}}\n"
    return text


async def _apply(settings: Settings) -> None:
    desired = expand(load_topology(settings.topology).topology)
    await apply_plan(settings, plan(desired, await live_objects(settings)))


def manage(management_url: str, method: str, path: str, body: object = None) -> object:
    """One call of the management API; its JSON answer, None when the answer is empty."""
    parts = urlsplit(management_url)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", "")) + path
    request = urllib.request.Request(  # noqa: S310 - http or https, from our own settings
        bare,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Basic {base64.b64encode(login).decode()}", "Content-Type": "application/json"},
    )
    # A proxy from the environment can't reach a broker on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        text = response.read()
    return json.loads(text) if text else None
