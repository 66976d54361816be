"""Which events are handled apart, because they may be what kills the worker. In: how often they came. Out: yes or no.

Each crash counts all that was in hand, though what killed can only have been among the first of its key: so only they
are suspects. Suspects are handled by themselves, in groups, the attempt written down before; those of a group that did
not survive are then handled one by one.
"""

from __future__ import annotations

from pipeline.worker.ordered.life import Life
from pipeline.worker.ordered.line import Item

SUSPECT = 3  # deliveries before an event is suspected
FIRST = 20  # of a key, in one life
GROUP = 64
DEATHS = 3  # attempts, at least, that may end with the worker's death


def is_suspect(life: Life, item: Item) -> bool:
    """Whether it is to be handled apart. Asking counts it among the first of its key."""
    if item.delivery.delivery_count < SUSPECT:
        return False
    looked_at = life.looked_at.get(item.key, 0)
    life.looked_at[item.key] = looked_at + 1
    return looked_at < FIRST or item.row is not None
