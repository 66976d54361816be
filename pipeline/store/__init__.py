"""Everything that touches SQLModel and SQLAlchemy: results, inbox and outbox of a subscription in one transaction."""

from pipeline.store.store import Store
from pipeline.store.writes import CommitReport, Counts, Effects, Outgoing, Upsert, Write

__all__ = ["CommitReport", "Counts", "Effects", "Outgoing", "Store", "Upsert", "Write"]
