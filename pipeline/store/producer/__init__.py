"""The producer's database: accepted events, their outbox, API keys and leases. `store` is the door."""

from pipeline.store.producer.store import ProducerStore
from pipeline.store.producer.values import Acceptance, ApiKey, NewEvent, OutboxStatus, StoredEvent, Waiting

__all__ = ["Acceptance", "ApiKey", "NewEvent", "OutboxStatus", "ProducerStore", "StoredEvent", "Waiting"]
