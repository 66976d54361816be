"""Takes the payment of an order. Trouble is in the cards, and always the same, so that the demo can be checked."""

from decimal import Decimal

from sqlmodel import Field, SQLModel

from pipeline import Context, Event, Publish, Reject, Result, Worker
from workers.models import OrderCreated, PaymentTaken

worker = Worker("payments")


class Payment(SQLModel, table=True):
    """A payment that was taken."""

    order_id: int = Field(primary_key=True)
    amount: Decimal
    reference: str


class BankUnavailable(Exception):
    """The bank did not answer; it may later."""


class CardDeclined(Exception):
    """The bank said no."""


@worker.handle("order.created")
async def take_payment(event: Event[OrderCreated], context: Context) -> list[Payment | Publish | Result]:
    """Charge the card, keep the payment, and tell the others."""
    order = event.data
    if order.card == "stolen":
        raise Reject("the card is reported stolen")
    if order.card == "empty":
        raise CardDeclined("insufficient funds")
    if order.card == "slow-bank" and context.attempt <= 2:
        raise BankUnavailable("no answer from the bank")
    reference = f"pay-{event.id}"
    return [
        Payment(order_id=order.order_id, amount=order.amount, reference=reference),
        Publish("payment.taken", PaymentTaken(order_id=order.order_id, amount=order.amount, reference=reference)),
        Result({"paid": order.amount, "reference": reference}),
    ]
