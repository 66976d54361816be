"""The data of the order service's events."""

from decimal import Decimal

from pydantic import BaseModel, Field


class OrderCreated(BaseModel):
    """A customer ordered something."""

    order_id: int
    customer: str
    sku: str
    quantity: int = Field(gt=0)
    amount: Decimal = Field(gt=0, decimal_places=2)
    card: str


class PaymentTaken(BaseModel):
    """The order is paid."""

    order_id: int
    amount: Decimal
    reference: str


class StockReserved(BaseModel):
    """The goods are put aside."""

    order_id: int
    sku: str
    quantity: int
