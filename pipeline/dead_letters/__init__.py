"""What became of the events that could not be processed, and the way back.

`looking` peeks without changing anything, `redrive` sends letters back to their work queue, `discard` removes them,
`export` writes them down. In: a subscription and a `Selection`. Out: `DeadLetter`s, a `Summary`, a `Report`.
"""

from pipeline.dead_letters.discard import discard
from pipeline.dead_letters.export import export, whole_file
from pipeline.dead_letters.letter import DeadLetter, PastFailure
from pipeline.dead_letters.looking import look_over, peek
from pipeline.dead_letters.progress import Progress, Report
from pipeline.dead_letters.redrive import redrive
from pipeline.dead_letters.selection import EVERYTHING, Selection, make_selection, require_choice
from pipeline.dead_letters.summary import Summary, summarise

__all__ = [
    "EVERYTHING",
    "DeadLetter",
    "PastFailure",
    "Progress",
    "Report",
    "Selection",
    "Summary",
    "discard",
    "export",
    "look_over",
    "make_selection",
    "peek",
    "redrive",
    "require_choice",
    "summarise",
    "whole_file",
]
