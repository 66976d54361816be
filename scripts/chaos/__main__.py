"""`make chaos`: a picture of its own, minutes of load, every box killed again and again. Exit code 0 if all is kept."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import time
from pathlib import Path

from pipeline.errors import PipelineError
from scripts.chaos.load import Done
from scripts.chaos.story import BOXES, Told, tell
from scripts.up import control
from scripts.up.place import PROJECT, Place, open_place

KEPT = ("gateway-1", "gateway-2", "broker", "payments-cache", "payments-worker", "relay")  # no request fails
TAKES = ("payments-db",)  # no event fails; a result that lies in no cache can't be read


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--gone", type=float, default=5, help="seconds a box is kept away")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    place = open_place(PROJECT / ".pipeline" / "chaos" / str(arguments.seed))
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes at {arguments.rate:g} requests/s, log in {place.log}")
    try:
        control.up(place, ["--folder", str(place.folder), "--port", "0"])
        told = asyncio.run(_tell(place, arguments))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        control.down(place)
    return report(told, place.folder)


async def _tell(place: Place, arguments: argparse.Namespace) -> Told:
    dice = random.Random(arguments.seed)
    until = time.monotonic() + arguments.minutes * 60

    def boxes() -> list[str]:
        return dice.sample((*BOXES, "gateway-2"), len(BOXES) + 1)

    def rounds() -> list[str]:
        each = (arguments.gone + 10) * (len(BOXES) + 1)
        return [box for _ in range(max(1, int((until - time.monotonic()) / each))) for box in boxes()]

    return await tell(place, arguments.rate, rounds(), arguments.gone, 2.0, lambda words: print(words, flush=True))


def _broken(box: str, failed: Done) -> bool:
    """Whether a failed request breaks a promise."""
    if failed.status != 503 or box in KEPT:
        return True
    return box in TAKES and not failed.reads


def report(told: Told, folder: Path) -> int:
    """Say what was found; the exit code."""
    books = told.books
    print(f"{books.accepted} requests accepted, {books.events} events")
    for name, count in books.processed.items():
        copies = f", {books.copies[name]} of them twice" if books.copies[name] else ""
        print(f"  {name:<12} {count} processed, {books.dead[name]} dead letters{copies}")
    for words in books.wrong[:20]:
        print(f"  WRONG: {words}")
    failed = [(loss.box, each) for loss in told.losses for each in loss.failed if _broken(loss.box, each)]
    for box, each in failed[:20]:
        print(f"  WRONG: request {each.number} failed with {each.status} while {box} was gone: {each.words}")
    if books.wrong or failed:
        return 1
    print("every accepted event was processed or dead-lettered, once, in every subscription")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
