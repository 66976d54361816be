"""Which delivery tags of one channel are settled. In: tags in any order. Out: what to send, as few acks as can be.

What is settled is collected until it is asked for.

Tags count up from 1 without gaps. The contiguous settled prefix goes as one ack with `multiple`; a tag settled ahead of
an unsettled one goes alone, so that a slow delivery does not hold back its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


class AckLedger:
    """The book of one channel's delivery tags."""

    __slots__ = ("_ahead", "_delivered", "_low", "_singles", "_upto", "unsent")

    def __init__(self) -> None:
        self._low = 1  # every tag below it is settled
        self._ahead: set[int] = set()  # settled, not below `_low`, and acked alone
        self._delivered = 0  # the highest tag handed out
        self._upto = 0  # every tag up to it is to be acked at once; 0 for none
        self._singles: list[int] = []  # to be acked alone
        self.unsent = 0  # deliveries settled whose ack was not taken yet

    @property
    def open(self) -> int:
        """Handed out and not settled."""
        return self._delivered - self._low + 1 - len(self._ahead)

    @property
    def begun(self) -> bool:
        """Something was handed out."""
        return self._delivered > 0

    def took(self, tag: int) -> None:
        """Deliveries up to `tag` were handed out."""
        self._delivered = tag

    def settle(self, tags: Sequence[int]) -> None:
        """These deliveries ended. A tag settled before changes nothing."""
        if not tags:
            return
        low = self._low
        if not self._ahead and tags[0] == low and tags[-1] - low + 1 == len(tags) and _ascending(tags):
            self._low = tags[-1] + 1
            self._upto = tags[-1]
            self.unsent += len(tags)
            return
        fresh = sorted(tag for tag in set(tags) if tag >= low and tag not in self._ahead)
        at = 0
        # The prefix runs through what is fresh and what was acked alone before; only a fresh tag may be named to the
        # broker, which refuses an ack for a tag it no longer knows.
        while True:
            if at < len(fresh) and fresh[at] == low:
                self._upto = low
                at += 1
            elif low in self._ahead:
                self._ahead.discard(low)
            else:
                break
            low += 1
        self._low = low
        singles = fresh[at:]
        self._ahead.update(singles)
        self._singles += singles
        self.unsent += len(fresh)

    def take(self) -> tuple[int, list[int]]:
        """(tag to ack with `multiple` or 0, tags to ack alone) of what was settled since it was asked last.

        Those alone must be sent first: the other may take them in.
        """
        found = self._upto, self._singles
        self._upto, self._singles, self.unsent = 0, [], 0
        return found

    def forget(self, tags: Sequence[int]) -> None:
        """The tags went back to the queue: nothing is to be acked for them."""
        self._ahead.update(tag for tag in tags if tag >= self._low)
        while self._low in self._ahead:
            self._ahead.discard(self._low)
            self._low += 1


def _ascending(tags: Sequence[int]) -> bool:
    return all(left + 1 == right for left, right in pairwise(tags))
