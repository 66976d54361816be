"""A topology as an SVG picture. In: `Topology`. Out: one self-contained SVG document, readable on light and dark.

event ─► exchange ─► ┌ queue ┐ ─► handler ─► dead letters      one lane for each queue
                     └───────┘ ◄─ 1s 5s 30s ◄──┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.topology.model import Topology
from pipeline.topology.picture import Lane, Picture, picture
from pipeline.topology.svg import SMALL, STYLE, box, curve, label, shortened, text_width, tip

MARGIN = 24.0
HEAD = 52.0  # above the first lane: the columns' titles
GAP = 64.0  # between columns, where the lines run
WIDE_GAP = 96.0  # in front of the queues, where most lines run
LANE_GAP = 16.0
PAD = 14.0  # inside a box, left and right
ROW = 40.0  # height of a box with one line
LINE = 16.0  # of small text
CHIP = 22.0
MAX_KEYS = 6  # binding keys written in a queue's box
MAX_CHIPS = 6
MAX_NAME = 34  # characters of a name


@dataclass(frozen=True, slots=True)
class _Columns:
    """Left edge and width of each column."""

    event: tuple[float, float]
    exchange: tuple[float, float]
    queue: tuple[float, float]
    handler: tuple[float, float]
    dead: tuple[float, float]

    @property
    def width(self) -> float:
        last = self.dead if self.dead[1] else self.handler if self.handler[1] else self.queue
        return last[0] + last[1] + PAD + MARGIN


def svg(topology: Topology) -> str:
    """The picture."""
    facts = picture(topology)
    columns = _columns(facts)
    tops, bottom = _lane_tops(facts.lanes)
    events, exchanges = _front_places(facts, tops, bottom)
    height = max([bottom, *(y + ROW / 2 for y in (*events, *exchanges.values()))]) + MARGIN
    size = f'width="{columns.width:g}" height="{height:g}" viewBox="0 0 {columns.width:g} {height:g}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="topology">',
        f"<style>{STYLE}</style>",
        box(0, 0, columns.width, height, "page", radius=0),
        *_titles(columns),
        *(_lane_ground(top, lane, columns) for top, lane in zip(tops, facts.lanes, strict=True)),
        *_wires(facts, columns, tops, events, exchanges),
        *_front(facts, columns, events, exchanges),
    ]
    for top, lane in zip(tops, facts.lanes, strict=True):
        parts += _lane(top, lane, columns)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _columns(facts: Picture) -> _Columns:
    subscribed = [lane for lane in facts.lanes if lane.subscription]
    chips = max((sum(_chip_width(text) + 6 for text in _chips(lane)) for lane in subscribed), default=0)
    dead = [lane.dead_letters for lane in subscribed if lane.dead_letters]
    widths = [
        _width([event.name for event in facts.events]),
        _width([name for name, _ in facts.exchanges], [kind for _, kind in facts.exchanges]),
        _width([lane.queue for lane in facts.lanes], [line for lane in facts.lanes for line in _key_lines(lane)]),
        # The way back leaves the handler to the right of the chips.
        max(_width([_handler(lane) for lane in subscribed]), chips + 24) if subscribed else 0,
        _width(dead),
    ]
    gaps = [GAP, WIDE_GAP, GAP, GAP, GAP]
    left, places = MARGIN, []
    for width, gap in zip(widths, gaps, strict=True):
        places.append((left, width))
        left += width + gap if width else 0
    return _Columns(*places)


def _width(names: Sequence[str], small: Sequence[str] = ()) -> float:
    if not names:
        return 0
    widths = [text_width(shortened(name, MAX_NAME)) for name in names]
    return round(max([*widths, *(text_width(line, SMALL) for line in small), 48]) + 2 * PAD)


def _lane_height(lane: Lane) -> float:
    keys = ROW + LINE * len(_key_lines(lane)) + (4 if _key_lines(lane) else 0)
    back = ROW + 20 + CHIP if lane.delays else ROW
    return max(keys, back)


def _lane_tops(lanes: Sequence[Lane]) -> tuple[list[float], float]:
    """The top of each lane's boxes, and where the last one ends."""
    tops, y = [], HEAD + PAD
    for lane in lanes:
        tops.append(y)
        y += _lane_height(lane) + 2 * PAD + LANE_GAP
    return tops, y - LANE_GAP - PAD


def _front_places(facts: Picture, tops: Sequence[float], bottom: float) -> tuple[list[float], dict[str, float]]:
    """The middle of each event and exchange: near what they are connected to, none over another."""
    lane_y = {lane.queue: top + ROW / 2 for lane, top in zip(facts.lanes, tops, strict=True)}
    fed: dict[str, list[float]] = {name: [] for name, _ in facts.exchanges}
    for lane in facts.lanes:
        for exchange in dict.fromkeys(source for source, _ in lane.keys):
            fed[exchange].append(lane_y[lane.queue])
    middle = (HEAD + bottom) / 2
    wished = {name: sum(ys) / len(ys) if ys else middle for name, ys in fed.items()}
    exchanges = dict(zip(wished, _spread(list(wished.values()), ROW + LINE + 14, bottom), strict=True))
    events = _spread([exchanges[event.exchange] for event in facts.events], ROW + 6, bottom)
    return events, exchanges


def _spread(wished: Sequence[float], step: float, bottom: float) -> list[float]:
    """Places as near to the wished ones as `step` allows, within the lanes' height where they fit."""
    order = sorted(range(len(wished)), key=lambda index: wished[index])
    groups: list[tuple[float, int]] = []  # (centre, members): those that would overlap share a centre
    for index in order:
        groups.append((wished[index], 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < step * (groups[-1][1] + groups[-2][1]) / 2:
            (low, few), (high, more) = groups[-2:]
            groups[-2:] = [((low * few + high * more) / (few + more), few + more)]
    placed: list[float] = []
    least = HEAD + ROW / 2
    for centre, members in groups:
        first = max(min(centre, bottom - members * step / 2) - (members - 1) * step / 2, least)
        placed += [first + step * member for member in range(members)]
        least = placed[-1] + step
    result = [0.0] * len(wished)
    for place, index in zip(placed, order, strict=True):
        result[index] = place
    return result


def _titles(columns: _Columns) -> Iterator[str]:
    named = (
        ("EVENTS", columns.event),
        ("EXCHANGES", columns.exchange),
        ("QUEUES", columns.queue),
        ("HANDLERS", columns.handler),
        ("DEAD LETTERS", columns.dead),
    )
    for text, (x, width) in named:
        if width:
            yield label(x, MARGIN + 10, text, "title")


def _lane_ground(top: float, lane: Lane, columns: _Columns) -> str:
    x = columns.queue[0] - PAD
    return box(x, top - PAD, columns.width - MARGIN - x, _lane_height(lane) + 2 * PAD, "lane", radius=12)


def _wires(
    facts: Picture, columns: _Columns, tops: Sequence[float], events: Sequence[float], exchanges: dict[str, float]
) -> Iterator[str]:
    leave = columns.exchange[0] + columns.exchange[1]
    for event, y in zip(facts.events, events, strict=True):
        css = "wire" if event.takers else "wire dashed"
        yield curve(columns.event[0] + columns.event[1], y, columns.exchange[0], exchanges[event.exchange], css)
    for lane, top in zip(facts.lanes, tops, strict=True):
        for source in dict.fromkeys(source for source, _ in lane.keys):
            yield curve(leave, exchanges[source], columns.queue[0], top + ROW / 2)
    for link in facts.links:
        start, end = exchanges[link.source], exchanges[link.destination]
        path = f"M{leave:g} {start:g}C{leave + 40:g} {start:g} {leave + 40:g} {end + 10:g} {leave + 6:g} {end + 10:g}"
        yield f'<path d="{path}" class="wire"/>{tip(leave, end + 10, "wire", left=True)}'


def _front(facts: Picture, columns: _Columns, events: Sequence[float], exchanges: dict[str, float]) -> Iterator[str]:
    x, width = columns.event
    for event, y in zip(facts.events, events, strict=True):
        css = "event" if event.takers else "event dashed"
        yield from _named(x, y - ROW / 2 + 4, width, ROW - 8, event.name, css, radius=(ROW - 8) / 2)
    x, width = columns.exchange
    for name, kind in facts.exchanges:
        y = exchanges[name] - (ROW + LINE) / 2
        yield box(x, y, width, ROW + LINE, "exchange", title=f"{name} ({kind})")
        yield label(x + PAD, y + 25, shortened(name, MAX_NAME), "strong")
        yield label(x + PAD, y + 43, kind, "small")


def _lane(top: float, lane: Lane, columns: _Columns) -> Iterator[str]:
    x, width = columns.queue
    yield box(x, top, width, _lane_height(lane), "queue", title=lane.queue)
    yield label(x + PAD, top + 25, shortened(lane.queue, MAX_NAME), "strong")
    for index, line in enumerate(_key_lines(lane)):
        yield label(x + PAD, top + ROW + 8 + index * LINE, line, "small")
    if lane.subscription is None:
        return
    hx, handler_width = columns.handler
    yield curve(x + width, top + ROW / 2, hx, top + ROW / 2)
    css = "handler" if lane.subscription.handler else "handler dashed"
    yield from _named(hx, top, handler_width, ROW, _handler(lane), css)
    if lane.delays:
        yield from _way_back(top, lane, columns)
    if lane.dead_letters:
        dx, dead_width = columns.dead
        yield curve(hx + handler_width, top + ROW / 2, dx, top + ROW / 2, "lost")
        yield from _named(dx, top, dead_width, ROW, lane.dead_letters, "dead")
        attempts = lane.subscription.retry.attempts
        said = f"after {attempts} attempt{'' if attempts == 1 else 's'}"
        yield label(dx + dead_width, top + ROW + 18, said, "small", "end")


def _way_back(top: float, lane: Lane, columns: _Columns) -> Iterator[str]:
    """From the handler's foot through the waiting times back into the queue."""
    back_to = columns.queue[0] + columns.queue[1]
    hx, width = columns.handler
    y = top + ROW + 20 + CHIP / 2
    turn = hx + width - 12
    yield (
        f'<path d="M{turn:g} {top + ROW:g}V{y - 8:g}Q{turn:g} {y:g} {turn - 8:g} {y:g}H{back_to + 6:g}" class="again"/>'
        f"{tip(back_to, y, 'again', left=True)}"
    )
    x = hx
    for text in _chips(lane):
        yield box(
            x, y - CHIP / 2, _chip_width(text), CHIP, "retry", radius=CHIP / 2, title=f"{lane.queue}.retry.{text}"
        )
        yield label(x + _chip_width(text) / 2, y + 4, text, "small", "middle")
        x += _chip_width(text) + 6


def _named(x: float, y: float, width: float, height: float, name: str, css: str, radius: float = 8) -> Iterator[str]:
    yield box(x, y, width, height, css, radius, title=name)
    yield label(x + PAD, y + height / 2 + 4.5, shortened(name, MAX_NAME))


def _handler(lane: Lane) -> str:
    return (lane.subscription.handler if lane.subscription else "") or "other programs"


def _chips(lane: Lane) -> list[str]:
    if len(lane.delays) <= MAX_CHIPS:
        return list(lane.delays)
    return [*lane.delays[: MAX_CHIPS - 2], f"+{len(lane.delays) - MAX_CHIPS + 1}", lane.delays[-1]]


def _chip_width(text: str) -> float:
    return round(text_width(text, SMALL) + 18)


def _key_lines(lane: Lane) -> list[str]:
    kind = [lane.order] if lane.order else [] if lane.subscription else [lane.queue_type]
    several = len({source for source, _ in lane.keys}) > 1
    keys = [shortened(f"{source}: {key}" if several else key or '""', MAX_NAME) for source, key in lane.keys]
    if len(keys) > MAX_KEYS:
        keys = [*keys[: MAX_KEYS - 1], f"+{len(keys) - MAX_KEYS + 1} more"]
    return [*kind, *keys]
