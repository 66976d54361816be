"""Every kind of thing that may describe an event's data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, computed_field
from sqlmodel import Field as Column
from sqlmodel import SQLModel
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12


class Line(BaseModel):
    sku: str
    quantity: int


class Order(BaseModel):
    order_id: int
    amount: Decimal
    lines: list[Line] = []


class Shipment(SQLModel, table=True):
    __tablename__ = "codec_test_shipment"

    id: int = Column(primary_key=True)
    weight: Decimal
    sent: datetime


class Parcel(SQLModel):
    id: int
    weight: Decimal
    sent: datetime


class Address(TypedDict):
    street: str
    number: int


@dataclass
class Point:
    x: int
    y: int


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")


class Strict(BaseModel):
    """Refuses what it does not know, and computes a field."""

    model_config = ConfigDict(extra="forbid")

    net: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        return self.net * 2


class Wrapped(BaseModel):
    inner: Json[list[int]]


class Card(BaseModel):
    kind: Literal["card"]


class Cash(BaseModel):
    kind: Literal["cash"]


Payment = Annotated[Card | Cash, Field(discriminator="kind")]

SCHEMA = {
    "type": "object",
    "required": ["order_id", "customer"],
    "properties": {
        "order_id": {"type": "integer"},
        "customer": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"quantity": {"minimum": 1}}}},
    },
}
