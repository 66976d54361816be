"""Events at set times. In: the topology's schedules. Out: their events, each tick once, whichever scheduler is active.

`ticks` reckons when, `memory` is what is remembered of the ticks done, `baton` makes one scheduler of many the active
one and carries the memory, `running` publishes.
"""

from pipeline.scheduler.running import Scheduler, run_scheduler
from pipeline.scheduler.ticks import next_ticks

__all__ = ["Scheduler", "next_ticks", "run_scheduler"]
