"""Where events are, and who works. In: settings and topology. Out: `EventStatuses`, `consumers`, `subscriptions`."""

from pipeline.observe.consumers import ConsumerView, Serving, SubscriptionView, consumers, subscriptions
from pipeline.observe.status import EventStatuses, SubscriptionStatus

__all__ = [
    "ConsumerView",
    "EventStatuses",
    "Serving",
    "SubscriptionStatus",
    "SubscriptionView",
    "consumers",
    "subscriptions",
]
