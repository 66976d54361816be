"""The HTTP gateway. In: requests with credentials. Out: events in the producer's outbox, and what became of them."""
