"""`python -m scripts.up up|down|status|run`: what `make up` and `make down` run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.log import configure
from scripts.up import control, picture
from scripts.up.application import API_KEY
from scripts.up.journal import Journal
from scripts.up.place import PROJECT, Place, open_place
from scripts.up.supervisor import OWN, Supervisor

CURL = """\
  curl -i {door}/events/order.created -H "Content-Type: application/json" \\
    -H "Authorization: Bearer $(cat {key})" -H "Idempotency-Key: $(date +%s%N)" \\
    -d '{{"order_id": '$(date +%s)', "customer": "me", "sku": "a", "quantity": 1, "amount": "9.50", "card": "good"}}'"""


def main() -> int:
    """Run one of the commands; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.up", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "run"))
    parser.add_argument("--folder", type=Path, default=PROJECT / ".pipeline" / "up", help="where everything is kept")
    parser.add_argument("--topology", type=Path, default=PROJECT / "topology")
    parser.add_argument("--port", type=int, help="of the front door; 0 for any (default: as last time, or 8080)")
    arguments = parser.parse_args()
    place = open_place(arguments.folder)
    try:
        return COMMANDS[arguments.command](place, arguments)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1


def up(place: Place, arguments: argparse.Namespace) -> int:
    """Have it running; say where."""
    print(f"starting; everything that is said goes to {place.log}", flush=True)
    passed = ["--folder", str(place.folder), "--topology", str(arguments.topology.absolute())]
    if arguments.port is not None:
        passed += ["--port", str(arguments.port)]
    said = control.up(place, passed)
    for name, address in said["addresses"].items():
        print(f"  {name:<12} {address}")
    print("an event through all of it:")
    print(CURL.format(door=said["addresses"]["front door"], key=place.secret_file(API_KEY)))
    print(f"the command line for it: . {place.environment}; pipeline consumers")
    return 0


def down(place: Place, _: argparse.Namespace) -> int:
    """End it; data stays."""
    print("stopped; data stays in " + str(place.folder) if control.down(place) else "nothing was running")
    return 0


def status(place: Place, _: argparse.Namespace) -> int:
    """Say how each box is; exit code 0 when all is ready."""
    said = control.read_status(place) if control.supervisors(place) else {}
    for name, box in said.get("boxes", {}).items():
        print(f"  {name:<16} {box['state']:<9} process {box['pid']:<8} started {box['starts']} times")
    ready = said.get("state") == "ready" and all(box["state"] == "ready" for box in said["boxes"].values())
    print("ready" if ready else said.get("state", "not running"))
    return 0 if ready else 1


def run(place: Place, arguments: argparse.Namespace) -> int:
    """Be the supervisor, in the foreground."""
    with control.only_one(place):
        return asyncio.run(_run(place, arguments))


async def _run(place: Place, arguments: argparse.Namespace) -> int:
    configure("error")
    journal = Journal(place.log)
    try:
        if await asyncio.to_thread(control.sweep, place):
            journal.say(OWN, "ended what an earlier supervisor had left running")
        found = picture.build(place, arguments.topology, arguments.port, lambda words: journal.say(OWN, words))
        try:
            return await Supervisor(place, found.stages, journal, found.addresses).run()
        finally:
            await found.queues.close()
    except PipelineError as error:
        journal.say(OWN, str(error))
        return 1
    finally:
        await journal.close()


COMMANDS = {"up": up, "down": down, "status": status, "run": run}

if __name__ == "__main__":
    sys.exit(main())
