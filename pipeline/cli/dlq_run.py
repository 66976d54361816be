"""What the `dlq` commands share. In: names and work to do. Out: subscriptions, results; progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import typer

from pipeline.cli.common import Progress as Shown
from pipeline.cli.common import run_async, start_logging
from pipeline.cli.dlq_views import Row, counted
from pipeline.dead_letters import look_over
from pipeline.dead_letters.progress import Progress, Watcher
from pipeline.errors import ConfigurationError, ObjectLocked, ObjectMissing, PipelineError
from pipeline.settings import load_settings
from pipeline.topology.findings import did_you_mean
from pipeline.topology.load import load_topology
from pipeline.topology.model import Subscription

T = TypeVar("T")

WORTH_A_BAR = 20_000  # letters: a look at fewer is over before a bar is read


class Desk:
    """Settings and topology of one command. `quiet` shows no progress."""

    def __init__(self, topology: str | None, quiet: bool) -> None:
        start_logging()
        self.settings = load_settings(topology=topology)
        self._subscriptions = load_topology(self.settings.topology).topology.subscriptions
        self._quiet = quiet

    def subscription(self, name: str) -> Subscription:
        """The subscription of that name. Raises: ConfigurationError."""
        found = self._subscriptions.get(name)
        if found is None:
            hint = did_you_mean(name, self._subscriptions)
            raise ConfigurationError(f"{self.settings.topology} has no subscription {name} ({hint})")
        return found

    def subscriptions(self, names: Sequence[str]) -> list[Subscription]:
        """Those named, or all that keep dead letters. Raises: ConfigurationError."""
        if names:
            return [self.subscription(name) for name in names]
        return [subscription for subscription in self._subscriptions.values() if subscription.dead_letter]

    def summary(self, subscription: Subscription) -> Row:
        """One subscription's figures, or why there are none: the others are still of interest."""
        name = subscription.name
        try:
            found = self.run(f"reading {name}", lambda watch: look_over(self.settings, subscription, watch))
        except (ObjectMissing, ObjectLocked) as error:
            return Row(name, None, str(error), error.exit_code)
        return Row(name, found)

    def run(self, title: str, work: Callable[[Watcher], Coroutine[Any, Any, T]], done: str = "") -> T:
        """Run `work` with its progress shown. When it is broken off, say how many it is `done` with (words for a deed).

        Raises: whatever `work` does; typer.Exit 130 on Ctrl-C.
        """
        last = Progress(0, 0, 0)
        with ExitStack() as stack:
            shown: Shown | None = None

            def watch(progress: Progress) -> None:
                nonlocal last, shown
                if shown is None:
                    quiet = self._quiet or (not done and progress.total < WORTH_A_BAR)
                    shown = stack.enter_context(Shown(title, progress.total, quiet))
                shown.advance(max(0, progress.seen - last.seen))
                last = progress

            try:
                return run_async(work(watch))
            except KeyboardInterrupt:
                typer.echo(
                    f"interrupted: {counted(last.done)} {done}" if done else "interrupted; nothing was changed",
                    err=True,
                )
                raise typer.Exit(130) from None
            except PipelineError:
                if done and last.done:
                    typer.echo(f"broken off: {counted(last.done)} {done}", err=True)
                raise
