"""How long the command line takes to say what it can."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.bench import Bench, Measure
from benchmarks.place import PROJECT
from benchmarks.results import Outcome, Row, spread
from benchmarks.scale import Scale

TARGET = 0.5  # s


def run(bench: Bench, outcome: Outcome) -> None:
    """One start that is not counted, then the others."""
    bench.say("startup: pipeline --help")
    # Where this is set, Python compiles every module at every start, which no installed program does.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    taken = []
    for number in range(bench.scale.starts + 1):
        began = time.perf_counter()
        command = [sys.executable, "-m", "pipeline", "--help"]
        subprocess.run(command, check=True, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        if number:
            taken.append(time.perf_counter() - began)
    found = spread(taken)
    outcome.rows.append(Row("`pipeline --help` start-up", "< 0.5 s", found.text("{:.2f}", " s"), found.median < TARGET))


def seconds(scale: Scale) -> float:
    """About."""
    return (scale.starts + 1) * 0.4


MEASURE = Measure("startup", "`pipeline --help`, from the start of the process to its end.", seconds, run)
