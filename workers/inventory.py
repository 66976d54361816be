"""Puts the goods of an order aside. Trouble is in the goods, and always the same, so that the demo can be checked."""

from sqlmodel import Field, SQLModel

from pipeline import Context, Event, Publish, Reject, Retry, Worker
from workers.models import OrderCreated, StockReserved

worker = Worker("inventory")


class Reservation(SQLModel, table=True):
    """Goods that are put aside for an order."""

    order_id: int = Field(primary_key=True)
    sku: str
    quantity: int


@worker.handle("order.created")
def reserve(event: Event[OrderCreated], context: Context) -> list[Reservation | Publish]:
    """Reserve the goods, and tell the others. A plain function: it runs in a thread."""
    order = event.data
    if order.sku == "discontinued":
        raise Reject("the article is no longer made")
    if order.sku == "recount" and context.attempt <= 2:
        raise Retry("the shelf is being counted", after=1)
    return [
        Reservation(order_id=order.order_id, sku=order.sku, quantity=order.quantity),
        Publish("stock.reserved", StockReserved(order_id=order.order_id, sku=order.sku, quantity=order.quantity)),
    ]
