"""Results by event id, kept nearer than the database. In: settings, how to load. Out: `ResultCache`, `AfterCommit`."""

from pipeline.cache.after_commit import AfterCommit
from pipeline.cache.results import Cached, ResultCache

__all__ = ["AfterCommit", "Cached", "ResultCache"]
