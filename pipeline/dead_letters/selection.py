"""Which dead letters are meant. In: the words of a command. Out: `Selection`, a yes or no for each letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from pipeline.dead_letters.letter import DeadLetter
from pipeline.errors import ConfigurationError
from pipeline.event import utc_now
from pipeline.topology.scalars import duration_ms

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Selection:
    """Letters that fit all the kinds of filter given, and within a kind any of its words. Empty: every letter.

    `errors` are looked for in the error's kind and message, without regard to case: as a glob over the whole text when
    there is a `*`, `?` or `[` in them, else anywhere. `before` keeps those that became dead letters earlier.
    `fingerprints` keeps exactly the letters seen before.
    """

    ids: frozenset[str] = frozenset()
    errors: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    before: datetime | None = None
    fingerprints: frozenset[bytes] | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether this letter is meant."""
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.types or letter.type in self.types)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.before is None or (letter.last_failure is not None and letter.last_failure < self.before))
            and (self.fingerprints is None or letter.fingerprint in self.fingerprints)
            and (not self.errors or any(_error_fits(pattern, letter) for pattern in self.errors))
        )

    @property
    def is_everything(self) -> bool:
        """No filter at all."""
        return self == EVERYTHING


EVERYTHING = Selection()


def make_selection(
    ids: Sequence[str] | None = None,
    errors: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
    reasons: Sequence[str] | None = None,
    older_than: str = "",
    now: datetime | None = None,
) -> Selection:
    """The selection for a command's words; `older_than` is a duration like `30m` or `2d` before `now`.

    Raises: ConfigurationError for a duration that is none, or an empty word.
    """
    for option, words in (("--id", ids), ("--error", errors), ("--type", types), ("--reason", reasons)):
        if words and "" in words:
            raise ConfigurationError(f"{option} is empty; leave it out to choose by something else")
    before = None
    if older_than:
        age = duration_ms(older_than)
        if age is None:
            raise ConfigurationError(f"--older-than is {older_than!r}; write a duration like 30s, 15m, 2h or 7d")
        try:
            before = (now or utc_now()) - timedelta(milliseconds=float(age))
        except OverflowError:
            raise ConfigurationError(f"--older-than {older_than} lies before the calendar's beginning") from None
    return Selection(
        frozenset(ids or ()), tuple(errors or ()), frozenset(types or ()), frozenset(reasons or ()), before
    )


def require_choice(selection: Selection, everything: bool, verb: str) -> None:
    """Refuse to act on a whole queue unasked, or on `--all` and filters at once. Raises: ConfigurationError."""
    if everything and not selection.is_everything:
        raise ConfigurationError(
            "--all means every dead letter; leave it out to use --id, --error and the other filters"
        )
    if not everything and selection.is_everything:
        raise ConfigurationError(
            f"nothing is chosen to {verb}: name dead letters with --id, --error, --type, --reason or --older-than, "
            "or take --all"
        )


def _error_fits(pattern: str, letter: DeadLetter) -> bool:
    wanted = pattern.lower()
    texts = (letter.error.lower(), letter.message.lower())
    if _GLOB & set(wanted):
        return any(fnmatchcase(text, wanted) for text in texts)
    return any(wanted in text for text in texts)
