"""Pictures without a plotting library. In: bars, curves. Out: SVG text, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from xml.sax.saxutils import escape

from benchmarks.results import Bar, Curve

WIDTH = 760
LABELS = 210  # left of the bars
BAR, GAP, GROUP_GAP = 20, 6, 38
PLOT = (72, 48, 560, 320)  # left, top, width, height of the curves

STYLE = """\
text{font:12px ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif;fill:#1f2933}
.title{font-size:15px;font-weight:600}.group{font-weight:600}.small{font-size:11px;fill:#616e7c}
.page{fill:#fff}.ours{fill:#2f6fd0}.theirs{fill:#b9c2cd}.range{stroke:#1f2933;stroke-width:1.5}
.grid{stroke:#e4e7eb;stroke-width:1}.limit{stroke:#d65a5a;stroke-width:1.5;stroke-dasharray:5 4}.bad{fill:#c04040}
.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}
.c0{stroke:#7fb3e6}.c1{stroke:#3f8ad0}.c2{stroke:#27a37c}.c3{stroke:#8064d6}.c4{stroke:#d9822b}.c5{stroke:#d65a5a}
@media (prefers-color-scheme:dark){
text{fill:#e6ebf1}.small{fill:#a4b1c0}.page{fill:#12171e}.ours{fill:#5b9bf3}.theirs{fill:#4b5866}
.range{stroke:#e6ebf1}.grid{stroke:#27303b}.bad{fill:#f08080}
}"""


def bars(title: str, given: Sequence[Bar]) -> str:
    """Horizontal bars, each group to a scale of its own; a thin line from least to most."""
    groups = list(dict.fromkeys(bar.group for bar in given))
    parts: list[str] = [_text(20, 30, title, "title")]
    y = 46
    for group in groups:
        y += GROUP_GAP - 12
        parts.append(_text(20, y, group, "group"))
        y += 10
        scale = (WIDTH - LABELS - 90) / max(bar.high for bar in given if bar.group == group)
        for bar in (each for each in given if each.group == group):
            kind = "ours" if bar.ours else "theirs"
            width = max(1.0, bar.value * scale)
            middle = y + BAR / 2
            parts.append(_text(LABELS - 10, middle + 4, bar.label, "", "end"))
            parts.append(f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3" class="{kind}"/>')
            if bar.high > bar.low:
                low, high = LABELS + bar.low * scale, LABELS + bar.high * scale
                parts.append(_line(low, middle, high, middle, "range"))
            parts.append(_text(LABELS + max(width, bar.high * scale) + 8, middle + 4, f"{bar.value:,.0f}/s"))
            y += BAR + GAP
    parts.append(
        _text(
            20,
            y + 24,
            "events a second; median of the rounds, line from least to most; each group has a scale of its own",
            "small",
        )
    )
    return _page(WIDTH, y + 40, parts)


def curves(title: str, given: Sequence[Curve], limit: float, limit_at: float) -> str:
    """Latency over percentile, both on scales that show the tail; `limit` (ms) is promised at percentile `limit_at`."""
    left, top, width, height = PLOT
    values = [value for curve in given for _, value in curve.points if value > 0]
    lowest, highest = floor(log10(min([*values, limit]))), ceil(log10(max([*values, limit])))

    def x_of(percent: float) -> float:
        nines = -log10(max(1 - percent / 100, 1e-5))  # 90 % is 1, 99 % is 2
        return left + width * nines / 5

    def y_of(value: float) -> float:
        share = (log10(max(value, 10.0**lowest)) - lowest) / max(1, highest - lowest)
        return top + height * (1 - share)

    parts = [_text(20, 28, title, "title")]
    for percent, name in (
        (0.0, "0"),
        (50, "50"),
        (90, "90"),
        (99, "99"),
        (99.9, "99.9"),
        (99.99, "99.99"),
        (100, "max"),
    ):
        parts.append(_line(x_of(percent), top, x_of(percent), top + height, "grid"))
        parts.append(_text(x_of(percent), top + height + 18, name, "small", "middle"))
    for power in range(lowest, highest + 1):
        parts.append(_line(left, y_of(10.0**power), left + width, y_of(10.0**power), "grid"))
        parts.append(_text(left - 8, y_of(10.0**power) + 4, f"{10.0**power:,g} ms", "small", "end"))
    parts.append(_line(left, y_of(limit), x_of(limit_at), y_of(limit), "limit"))
    parts.append(_line(x_of(limit_at), y_of(limit), x_of(limit_at), top + height, "limit"))
    parts.append(_text(left + 6, y_of(limit) - 6, f"promised: {limit_at:g} % within {limit:g} ms", "bad"))
    for number, curve in enumerate(given):
        path = " ".join(f"{x_of(percent):.1f},{y_of(value):.1f}" for percent, value in curve.points)
        parts.append(f'<polyline points="{path}" class="curve c{number % 6}"/>')
        y = top + 16 + 20 * number
        parts.append(_line(left + width + 24, y - 4, left + width + 48, y - 4, f"curve c{number % 6}"))
        parts.append(_text(left + width + 54, y, curve.label))
    parts.append(_text(left + width / 2, top + height + 40, "percentile of events", "small", "middle"))
    return _page(WIDTH, top + height + 56, parts)


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}{where}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _page(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    page = f'<rect class="page" width="{width:g}" height="{height:g}" rx="8"/>'
    return "\n".join((head, f"<style>{STYLE}</style>", page, *parts, "</svg>", ""))
