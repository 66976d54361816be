"""A worker process that notes when each event was committed. In: the arguments of `pipeline worker run-process`.

Out: pairs of (event's number, nanoseconds of the monotonic clock) in the file `BENCH_COMMITS` names, when it ends. The
time is taken when `Store.commit` has returned to the worker, a little late rather than early. All else is the product.
"""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from benchmarks.payload import number_of
from pipeline.cli.main import run
from pipeline.store.store import Store
from pipeline.store.writes import CommitReport, Effects

FILE = "BENCH_COMMITS"  # environment variable: where the pairs go


def main() -> None:
    """Run the worker, then write down what was noted."""
    noted: list[tuple[int, list[str]]] = []
    commit = Store.commit

    async def timed(self: Store, batch: Sequence[Effects]) -> CommitReport:
        report = await commit(self, batch)
        noted.append((time.monotonic_ns(), report.processed))
        return report

    setattr(Store, "commit", timed)  # noqa: B010 - mypy rightly forbids the plain assignment to a method
    sys.argv = ["pipeline", "worker", "run-process", *sys.argv[1:]]
    try:
        run()
    finally:
        pairs = array("q")
        for at, ids in noted:
            for event in ids:
                pairs.extend((number_of(event), at))
        Path(os.environ[FILE]).write_bytes(pairs.tobytes())


if __name__ == "__main__":
    main()
