"""Revisions of the producer's tables, oldest first."""
