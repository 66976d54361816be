"""Handler modules: what is found in them, and what can be wrong, in a sentence that says where."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError, HandlerError
from pipeline.topology.model import Topology
from pipeline.worker.loading import LoadedWorker, load_worker, pick
from tests.unit.worker.models import PaymentRow, PaymentTaken
from tests.unit.worker.works import CODEC, PAYMENTS, TOPOLOGY

IMPORTS = "from pipeline import Event, Worker\nworker = Worker('payments')\n"
HANDLER = "@worker.handle('order.created')\nasync def take(event: Event[int]) -> None: ...\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], LoadedWorker]]:
    """Writes `handlers_of_test.py` and loads the worker of `payments` from it."""
    name = "handlers_of_test"
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(text: str) -> LoadedWorker:
        (tmp_path / f"{name}.py").write_text(text)
        return load_worker(replace(PAYMENTS, handler=name), CODEC)

    yield load
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import does_not_exist\n", ["module 'handlers_of_test' needs 'does_not_exist', which is missing"]),
        ("class Order:\n    wrong(\n", ["can't be imported: SyntaxError", "handlers_of_test.py:2"]),
        ("\n\n1 / 0\n", ["can't be imported: ZeroDivisionError: division by zero", "handlers_of_test.py:3"]),
        ("worker = 1\n", ["module 'handlers_of_test' has no Worker('payments')"]),
        (
            "from pipeline import Worker\nworker = Worker('payment')\n",
            ["module 'handlers_of_test' has no Worker('payments'); it has one for 'payment'"],
        ),
        (IMPORTS, ["subscription 'payments' receives 'order.created'", "add @worker.handle('order.created')"]),
        (
            f"{IMPORTS}@worker.handle('order.created')\ndef take(event: int) -> None: ...\n",
            ["handlers_of_test.take: its first argument must be Event[...] or list[Event[...]]"],
        ),
        (
            f"{IMPORTS}class Odd: ...\n@worker.handle('order.created')\ndef take(event: Event[Odd]) -> None: ...\n",
            ["Odd", "can't be used as an event's model"],
        ),
    ],
)
def test_a_module_that_can_not_be_used_is_told_why(
    load: Callable[[str], LoadedWorker], text: str, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("module", ["does_not_exist", "tests.unit.worker.does_not_exist"])
def test_a_missing_module_is_named(module: str) -> None:
    with pytest.raises(HandlerError, match=f"handler module '{module}' of subscription 'payments' is not found in "):
        load_worker(replace(PAYMENTS, handler=module), CODEC)


def test_a_module_may_hold_workers_of_several_subscriptions(load: Callable[[str], LoadedWorker]) -> None:
    loaded = load(f"{IMPORTS}{HANDLER}other = Worker('inventory')\n")
    assert set(loaded.handlers) == {"order.created"}


def test_data_is_what_the_annotation_says_or_else_the_topology(load: Callable[[str], LoadedWorker]) -> None:
    loaded = load(
        f"{IMPORTS}{HANDLER}"
        "@worker.handle('payment.taken')\nasync def untyped(event): ...\n"
        "@worker.handle('order.noted')\nasync def mapping(event: Event[dict[str, int]]): ...\n"
    )
    annotations: dict[str, Any] = {name: payload.annotation for name, payload in loaded.payloads.items()}
    assert annotations == {"order.created": int, "payment.taken": Any, "order.noted": dict[str, int]}
    # An event of the subscription has the topology's model.
    subscribed = replace(PAYMENTS, events=("payment.taken",), handler="handlers_of_test")
    assert load_worker(subscribed, CODEC).payloads["payment.taken"].annotation is PaymentTaken


MODELS = "import tests.unit.worker.models as models\n"
RETURNS = "@worker.handle('order.created')\ndef take(event: Event[int]) -> list[models.PaymentRow] | None: ...\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{IMPORTS}{HANDLER}from tests.unit.worker.models import PaymentRow\n",
        f"{MODELS}{IMPORTS.replace(')', ', tables=[models.PaymentRow])')}{HANDLER}",
        f"{MODELS}{IMPORTS}{RETURNS}",
    ],
)
def test_tables_are_found_where_they_are_named_declared_or_returned(
    load: Callable[[str], LoadedWorker], text: str
) -> None:
    assert load(text).tables == (PaymentRow,)


def test_subscriptions_are_picked_by_name_or_all_that_have_a_handler() -> None:
    handled = replace(PAYMENTS, handler="handlers")
    topology: Topology = replace(
        TOPOLOGY, subscriptions={"payments": handled, "audit": replace(PAYMENTS, name="audit")}
    )

    assert pick(topology, ()) == [handled]
    assert pick(topology, ("payments",)) == [handled]
    with pytest.raises(ConfigurationError, match="no subscription is called 'paymets'; did you mean 'payments'"):
        pick(topology, ("paymets",))
    with pytest.raises(ConfigurationError, match="no subscription is called 'x'; there are payments, audit"):
        pick(topology, ("x",))
    with pytest.raises(ConfigurationError, match="subscription 'audit' has no `handler:` in the topology file"):
        pick(topology, ("audit",))
    with pytest.raises(ConfigurationError, match="no subscription of the topology has a handler"):
        pick(TOPOLOGY, ())
