"""The transactional outbox's way out: accepted events → the broker, in order, confirmed, by one relay at a time."""

from pipeline.outbox.relay import Relay, holder_name

__all__ = ["Relay", "holder_name"]
