"""Keeps the state of each order from the events of the others, in whatever order they arrive."""

from sqlmodel import Field, SQLModel

from pipeline import Event, Upsert, Worker
from workers.models import OrderCreated, PaymentTaken, StockReserved

worker = Worker("orders")


class Order(SQLModel, table=True):
    """What is known of an order. Each event sets its own columns, so none has to wait for another."""

    order_id: int = Field(primary_key=True)
    customer: str | None = None
    payment: str | None = None
    reserved: int | None = None


@worker.handle("order.created")
async def opened(event: Event[OrderCreated]) -> Upsert:
    """The order exists."""
    return Upsert(Order(order_id=event.data.order_id, customer=event.data.customer))


@worker.handle("payment.taken")
async def paid(event: Event[PaymentTaken]) -> Upsert:
    """The order is paid."""
    return Upsert(Order(order_id=event.data.order_id, payment=event.data.reference))


@worker.handle("stock.reserved")
async def reserved(event: Event[StockReserved]) -> Upsert:
    """The goods are put aside."""
    return Upsert(Order(order_id=event.data.order_id, reserved=event.data.quantity))
