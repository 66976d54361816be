"""Models and tables of the worker's tests."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, field_validator
from sqlmodel import Field, SQLModel


class PaymentTaken(BaseModel):
    """The data of payment.taken."""

    order_id: int
    amount: Decimal = Decimal(1)


class Careless(BaseModel):
    """A model whose validator has a bug."""

    order_id: int

    @field_validator("order_id")
    @classmethod
    def divide(cls, order_id: int) -> int:
        """Fails for 0 in a way pydantic does not know."""
        return 10 // order_id


class PaymentRow(SQLModel, table=True):
    """A table."""

    order_id: int = Field(primary_key=True)


class NotATable(SQLModel):
    """A SQLModel class that is none."""

    order_id: int
