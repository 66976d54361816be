"""The part of a subscription's database that keeps order: partitions, lines of failed events, fenced commits."""
