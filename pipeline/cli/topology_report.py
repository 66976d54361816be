"""Plans, what apply did, and trees on a terminal. In: values. Out: coloured lines (plain ones off a terminal)."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pipeline.amqp.apply import Applied
from pipeline.topology.draw_tree import Branch, tree_text
from pipeline.topology.model import Binding
from pipeline.topology.plan import Plan, Step, StepKind

_HEADINGS: tuple[tuple[StepKind, str, str, str], ...] = (
    ("create", "+", "green", "to create"),
    ("change", "~", "yellow", "to change"),
    ("drift", "!", "magenta", "drift: on the broker, not in the files; `apply --prune` removes it"),
    ("immutable", "✗", "red", "needs destruction: never done by apply, see docs/topology.md"),
    ("unmanaged", "·", "dim", "unmanaged: on the broker, not in the files, left alone"),
)
_BRANCH_STYLES = {
    "title": "bold",
    "event": "blue",
    "exchange": "magenta",
    "queue": "green",
    "retry": "yellow",
    "dead_letter": "red",
}


def print_plan(plan: Plan) -> None:
    """The steps by kind, and a last line that says what to do."""
    console = _console()
    for kind, mark, style, heading in _HEADINGS:
        _print_steps(console, plan.of(kind), mark, style, heading)
    if plan.exit_code == 0:
        console.print("nothing to do: the broker is as the files say", style="green")
        return
    counted: dict[StepKind, str] = {
        "create": "to create",
        "change": "to change",
        "drift": "drifted",
        "immutable": "only destruction could change",
    }
    counts = ", ".join(f"{len(plan.of(kind))} {said}" for kind, said in counted.items() if plan.of(kind))
    makes = bool(plan.of("create", "change"))
    hint = "; `pipeline topology apply` brings the broker to the files" if makes else ""
    console.print(Text(counts + hint, style="bold"))


def print_applied(applied: Applied, *, nothing_to_do: bool) -> None:
    """What was done, what was not, and why."""
    console = _console()
    created = tuple(step for step in applied.done if step.kind == "create")
    changed = tuple(step for step in applied.done if step.kind == "change")
    left = [step for step in applied.left if step.kind == "drift"]
    _print_steps(console, created, "+", "green", "created")
    _print_steps(console, changed, "~", "yellow", "changed")
    _print_steps(console, applied.pruned, "-", "magenta", "removed")
    for step, reason in applied.kept:
        console.print(_line(step, "·", "magenta", f"kept: {reason}"))
    _print_steps(console, tuple(left), "!", "magenta", "left, on the broker and not in the files; --prune removes it")
    destruction = tuple(step for step in applied.left if step.kind == "immutable")
    _print_steps(console, destruction, "✗", "red", "needs destruction: not done, see docs/topology.md")
    if nothing_to_do and not applied.pruned and not applied.kept:
        console.print("nothing to do: the broker is as the files say", style="green")
    elif applied.exit_code == 0:
        console.print("done: the broker is as the files say", style="green")


def print_tree(branch: Branch) -> None:
    """The tree: coloured and folded to the window on a terminal, plain elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.out(tree_text(branch))
        return
    tree = Tree(_label(branch), guide_style="dim")
    _grow(tree, branch.children)
    console.print(tree)


def _grow(tree: Tree, branches: tuple[Branch, ...]) -> None:
    for branch in branches:
        _grow(tree.add(_label(branch)), branch.children)


def _label(branch: Branch) -> Text:
    text = Text(branch.label, style=_BRANCH_STYLES.get(branch.kind, ""))
    return text.append(f"  {branch.note}", style="not bold dim") if branch.note else text


def _print_steps(console: Console, steps: tuple[Step, ...], mark: str, style: str, heading: str) -> None:
    if not steps:
        return
    console.print(Text(heading, style=f"bold {style}"))
    for first, others in _alike(steps):
        console.print(_line(first, mark, style, first.detail, f" and {others} more like it" if others else ""))


def _alike(steps: tuple[Step, ...]) -> list[tuple[Step, int]]:
    """The steps, with bindings between the same two as one: those of an ordered subscription are 64."""
    alike: dict[object, list[Step]] = {}
    for step in steps:
        what: object = step.target
        key = (what.source, what.destination, step.detail) if isinstance(what, Binding) else len(alike)
        alike.setdefault(key, []).append(step)
    return [(first, len(others)) for first, *others in alike.values()]


def _line(step: Step, mark: str, style: str, detail: str, more: str = "") -> Text:
    line = Text(f"  {mark} {step.object:<8} ", style=style).append(step.name + more, style="default not dim")
    return line.append(f"  {detail}", style="dim") if detail else line


def _console() -> Console:
    # No wrapping: a line is one object, for grep as well as for eyes.
    return Console(soft_wrap=True, highlight=False)
