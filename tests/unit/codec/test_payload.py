"""Payloads: every kind reads, checks and writes; faults name the field and never the value that was found there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.payload import Payload, any_json, from_annotation, from_declaration
from pipeline.errors import ConfigurationError, InvalidPayload, UndecodableBody
from pipeline.topology.model import EventType
from tests.unit.codec.models import (
    SCHEMA,
    Address,
    Aliased,
    Card,
    Line,
    Order,
    Parcel,
    Payment,
    Point,
    Shipment,
    Strict,
    Wrapped,
)

SECRET = "hunter2"
SENT = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)


def declared(model: str = "", schema: str = "") -> EventType:
    return EventType("order.created", "events", "order.created", model, schema)


@pytest.fixture
def by_schema(tmp_path: Path) -> Payload:
    (tmp_path / "order.json").write_text(json.dumps(SCHEMA))
    return from_declaration(declared(schema=str(tmp_path / "order.json")))


# --- what fits ---


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Order, b'{"order_id": "7", "amount": "1.50"}', Order(order_id=7, amount=Decimal("1.50"))),
        (
            Shipment,
            b'{"id": "7", "weight": "1.50", "sent": "2026-11-20T10:30:00Z"}',
            Shipment(id=7, weight=Decimal("1.50"), sent=SENT),
        ),
        (
            Parcel,
            b'{"id": 7, "weight": 1.5, "sent": "2026-11-20T10:30:00Z"}',
            Parcel(id=7, weight=Decimal("1.5"), sent=SENT),
        ),
        (Address, b'{"street": "Hoofdweg", "number": 7}', {"street": "Hoofdweg", "number": 7}),
        (Point, b'{"x": 1, "y": 2}', Point(1, 2)),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (list[Line], b'[{"sku": "a", "quantity": 1}]', [Line(sku="a", quantity=1)]),
        (int | None, b"null", None),
        (Any, b'{"any": [1, "thing"]}', {"any": [1, "thing"]}),
        (Wrapped, b'{"inner": "[1,2]"}', Wrapped.model_validate({"inner": "[1,2]"})),
        (Payment, b'{"kind": "card"}', Card(kind="card")),
    ],
)
def test_every_kind_of_model_reads_checks_and_writes(annotation: Any, body: bytes, value: Any) -> None:
    payload = from_annotation(annotation)

    read = payload.read(body)

    assert read == value
    assert type(read) is type(value)
    assert payload.check(read) == value
    assert payload.read(payload.write(read)) == value


def test_a_schema_reads_checks_and_writes(by_schema: Payload) -> None:
    data = {"order_id": 7, "customer": {"name": "Ann"}, "lines": [{"quantity": 1}]}

    assert by_schema.read(json.dumps(data).encode()) == data
    assert by_schema.check(data) == data
    assert by_schema.read(by_schema.write(data)) == data


def test_a_schema_sees_values_as_they_will_stand_in_the_body(by_schema: Payload) -> None:
    found = by_schema.check({"order_id": 7, "customer": {"name": SENT}})

    assert found == {"order_id": 7, "customer": {"name": "2026-11-20T10:30:00Z"}}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_comes_back_as_it_was(value: Any) -> None:
    payload = any_json()

    assert payload.read(payload.write(payload.check(value))) == value


def test_names_and_aliases_are_both_read_and_the_alias_is_written() -> None:
    payload = from_annotation(Aliased)

    written = payload.write(payload.check(Aliased(orderId=7)))

    assert written == b'{"orderId":7}'
    assert payload.read(written) == payload.read(b'{"order_id": 7}') == Aliased(orderId=7)


def test_a_model_that_forbids_extra_fields_reads_what_it_computed() -> None:
    payload = from_annotation(Strict)

    assert payload.read(payload.write(payload.check(Strict(net=1)))) == Strict(net=1)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("annotation", "body", "path"),
    [
        (Order, f'{{"order_id": "{SECRET}", "amount": 1}}', "order_id"),
        (Order, f'{{"order_id": 1, "amount": 1, "lines": [{{"sku": "{SECRET}", "quantity": null}}]}}', "lines.0.quant"),
        (Order, f'{{"customer": "{SECRET}"}}', "order_id"),
        (Order, f'"{SECRET}"', "(whole)"),
        (Shipment, f'{{"id": 1, "weight": "{SECRET}", "sent": "2026-11-20T10:30:00Z"}}', "weight"),
        (Shipment, f'{{"id": 1, "weight": 1, "sent": "{SECRET}"}}', "sent"),
        (Parcel, f'{{"id": 1, "weight": 1, "sent": "{SECRET}"}}', "sent"),
        (Address, f'{{"street": "{SECRET}"}}', "number"),
        (Point, f'{{"x": 1, "y": "{SECRET}"}}', "y"),
        (dict[str, int], f'{{"a": "{SECRET}"}}', "a"),
        (Payment, f'{{"kind": "{SECRET}"}}', "'card', 'cash'"),
        (Wrapped, f'{{"inner": "{SECRET}"}}', "inner"),
    ],
)
def test_faults_name_the_field_and_not_the_value(annotation: Any, body: str, path: str) -> None:
    payload = from_annotation(annotation)

    with pytest.raises(InvalidPayload) as read:
        payload.read(body.encode())
    with pytest.raises(InvalidPayload) as checked:
        payload.check(json.loads(body))

    for fault in (read, checked):
        assert path in str(fault.value)
        assert SECRET not in str(fault.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"order_id": SECRET, "customer": {"name": "Ann"}}, "order_id: breaks 'properties/order_id/type'"),
        ({"order_id": 1, "customer": {"nom": SECRET}}, "customer.name: is required"),
        ({"customer": {"name": SECRET}}, "order_id: is required"),
        ({"order_id": 1, "customer": {"name": SECRET}, "lines": [{}, {"quantity": 0}]}, "lines.1.quantity: breaks"),
        ([SECRET], "(whole): breaks 'type'"),
    ],
)
def test_faults_against_a_schema_do_so_as_well(by_schema: Payload, data: Any, told: str) -> None:
    for refused in (by_schema.check, lambda value: by_schema.read(json.dumps(value).encode())):
        with pytest.raises(InvalidPayload) as fault:
            refused(data)
        assert told in str(fault.value)
        assert SECRET not in str(fault.value)


def test_of_many_faults_a_few_are_told_and_the_rest_counted() -> None:
    with pytest.raises(InvalidPayload) as fault:
        from_annotation(list[int]).read(b'["x","x","x","x","x","x","x"]')

    assert str(fault.value).endswith("and 2 more")
    assert str(fault.value).count("valid integer") == 5


def unchecked(**fields: Any) -> Shipment:
    return Shipment(**fields)


def changed(value: Any, name: str) -> Any:
    setattr(value, name, SECRET)
    return value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, changed(Order(order_id=1, amount=Decimal(1)), "order_id")),
        (Parcel, changed(Parcel(id=1, weight=Decimal(1), sent=SENT), "id")),
        (Shipment, changed(Shipment(id=1, weight=Decimal(1), sent=SENT), "id")),
        (Shipment, unchecked(id=1, weight=SECRET, sent=SENT)),  # a table class takes anything
        (Point, changed(Point(1, 2), "x")),
        (Order, Order.model_construct(order_id=SECRET)),
        (list[Line], [changed(Line(sku="a", quantity=1), "quantity")]),
        (Order, Line(sku="a", quantity=1)),
        (Point, SECRET),
    ],
)
def test_an_instance_is_checked_again_before_it_goes_out(annotation: Any, value: Any) -> None:
    with pytest.raises(InvalidPayload) as fault:
        from_annotation(annotation).check(value)

    assert SECRET not in str(fault.value)


# --- what is not JSON ---

NOT_JSON = [
    b"",
    b"{",
    b'{"order_id": 1} {"order_id": 2}',
    b"\xff\xfe",
    b'"\xff"',
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 1_000_000,
    b"undefined",
]


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("annotation", [Any, Order, Shipment], ids=["any", "model", "table"])
def test_what_is_not_json_is_told_apart_from_what_does_not_fit(annotation: Any, body: bytes) -> None:
    with pytest.raises(UndecodableBody, match="not JSON"):
        from_annotation(annotation).read(body)


@pytest.mark.parametrize("body", [b"NaN", b'{"a": [Infinity]}', b"-Infinity"])
def test_numbers_that_json_does_not_have_are_not_json(body: bytes) -> None:
    with pytest.raises(UndecodableBody):
        any_json().read(body)


@pytest.mark.parametrize("value", [object(), lambda: 0, float("nan"), {"a": [float("-inf")]}, "\ud800"])
def test_what_has_no_json_form_is_refused_on_the_way_out(value: Any) -> None:
    with pytest.raises(InvalidPayload, match="no JSON form"):
        any_json().write(value)


def test_texts_may_speak_of_infinity() -> None:
    payload = any_json()

    assert payload.read(payload.write({"word": "NaN and Infinity"})) == {"word": "NaN and Infinity"}


# --- what can't be used ---


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (declared(model="no.such.module:Order"), "is the command run where"),
        (declared(model="tests.unit.codec.models:NoSuchClass"), "NoSuchClass"),
        (declared(model="asyncio:Lock"), "can't be used as an event's model"),
        (declared(schema="/no/such/schema.json"), "/no/such/schema.json"),
    ],
)
def test_a_model_that_can_not_be_had_is_a_configuration_error(event: EventType, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        from_declaration(event)


@pytest.mark.parametrize("text", ["", "{", '{"type": "no such type"}', '{"$ref": "#/nowhere"}', "[]", '{"a": "\xff"}'])
def test_a_schema_that_is_none_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    schema = tmp_path / "schema.json"
    schema.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigurationError, match=r"schema\.json"):
        from_declaration(declared(schema=str(schema)))


def test_models_are_imported_by_name() -> None:
    payload = from_declaration(declared(model="tests.unit.codec.models:Order"))

    assert payload.read(b'{"order_id": 1, "amount": 2}') == Order(order_id=1, amount=Decimal(2))
