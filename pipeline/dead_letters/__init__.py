"""What became of the events that could not be processed, and the way back.

`looking` peeks without changing anything, `redriving` sends letters back to their work queue, `discarding` removes
them, `exporting` writes them down. In: a subscription and a `Selection`. Out: `DeadLetter`s, a `Summary`, a `Report`.
"""

from pipeline.dead_letters.discarding import discard
from pipeline.dead_letters.exporting import export, whole_file
from pipeline.dead_letters.letter import DeadLetter, PastFailure
from pipeline.dead_letters.looking import look_over, peek
from pipeline.dead_letters.progress import Progress, Report
from pipeline.dead_letters.redriving import redrive
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
