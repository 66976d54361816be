"""Revisions of the workers' tables, oldest first."""
