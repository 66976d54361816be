"""The few SVG shapes the topology's drawing is made of. In: numbers and text. Out: escaped SVG elements as text.

Names are set in a monospaced font, whose width can be known without the font: 0.6 of its size a character.
"""

from __future__ import annotations

import unicodedata
from xml.sax.saxutils import escape, quoteattr

FONT_SIZE = 13.0
SMALL = 11.0
_ADVANCE = 0.602  # of the font size, a character; two for wide ones

STYLE = """\
text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px;fill:#1f2933}
.title{font-family:ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif;font-size:11px;\
letter-spacing:.08em;fill:#7b8794}
.small{font-size:11px;fill:#616e7c}
.strong{font-weight:600}
.page{fill:#ffffff}
.lane{fill:#f7f9fb}
.event{fill:#e4eeff;stroke:#4c82d9}
.exchange{fill:#eee8ff;stroke:#8064d6}
.queue{fill:#dff6ed;stroke:#27a37c}
.handler{fill:#ffffff;stroke:#9aa5b1}
.retry{fill:#fff3d9;stroke:#d29922}
.dead{fill:#ffe7e7;stroke:#d65a5a}
.wire{fill:none;stroke:#a3afbd;stroke-width:1.5}
.again{fill:none;stroke:#d29922;stroke-width:1.5}
.lost{fill:none;stroke:#d65a5a;stroke-width:1.5}
.tip{fill:#a3afbd}.again-tip{fill:#d29922}.lost-tip{fill:#d65a5a}
.dashed{stroke-dasharray:4 3}
@media (prefers-color-scheme:dark){
text{fill:#e6ebf1}.title{fill:#8b98a8}.small{fill:#a4b1c0}
.page{fill:#12171e}.lane{fill:#1a212a}
.event{fill:#17294a}.exchange{fill:#2a2150}.queue{fill:#0f3a2d}.handler{fill:#222b36;stroke:#657384}
.retry{fill:#43320c}.dead{fill:#4a1d1f}
.wire{stroke:#5d6b7c}.tip{fill:#5d6b7c}
}"""


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """The width of `text` in pixels."""
    cells = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    return cells * size * _ADVANCE


def shortened(text: str, limit: int) -> str:
    """`text`, its middle left out when it has more than `limit` characters: both ends of a name tell most."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def label(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    """One line of text with its baseline at `y`."""
    where = f'x="{x:g}" y="{y:g}"'
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    name = f' class="{css}"' if css else ""
    return f"<text {where}{end}{name}>{_clean(text)}</text>"


def box(x: float, y: float, width: float, height: float, css: str, radius: float = 8, title: str = "") -> str:
    """A rounded rectangle; `title` is shown when the pointer rests on it."""
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class={quoteattr(css)}'
    return f"{shape}><title>{_clean(title)}</title></rect>" if title else f"{shape}/>"


def curve(x1: float, y1: float, x2: float, y2: float, css: str = "wire") -> str:
    """A line that leaves and arrives level, with a tip at its end."""
    bend = max(24.0, (x2 - x1) / 2)
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 6:g} {y2:g}"
    return f'<path d="{path}" class="{css}"/>{tip(x2, y2, css)}'


def tip(x: float, y: float, css: str, *, left: bool = False) -> str:
    """An arrow's tip at (x, y), pointing right or left."""
    back = 7 if left else -7
    name = "tip" if css.split()[0] == "wire" else f"{css.split()[0]}-tip"
    return f'<path d="M{x:g} {y:g}l{back} -4v8z" class="{name}"/>'


def _clean(text: str) -> str:
    # Characters XML 1.0 can't hold would make the whole picture unreadable.
    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
