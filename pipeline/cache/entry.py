"""One cached value with the time it was read or written. In: JSON bytes. Out: bytes for the cache, and back.

The cache keeps values far longer than they count as fresh, so its own expiry can't say how old one is.
"""

from __future__ import annotations

from dataclasses import dataclass

MARK = b"v1 "  # another layout gets another mark, and what an older version left is a miss


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and when it was true, in seconds since the epoch."""

    value: bytes
    at: float

    def age(self, now: float) -> float:
        """Seconds; never below 0, though clocks of machines differ."""
        return max(0.0, now - self.at)

    def encode(self) -> bytes:
        """`v1 1764000000123\\n{...}`."""
        return b"%b%d\n%b" % (MARK, round(self.at * 1000), self.value)


def decode_entry(data: object) -> Entry | None:
    """The entry, None when these bytes are of somebody else."""
    if not isinstance(data, bytes) or not data.startswith(MARK):
        return None
    head, line, value = data[len(MARK) :].partition(b"\n")
    if not line or not head.isdigit():
        return None
    return Entry(value, int(head) / 1000)
