"""`python -m workers`: start the worker processes of the reference application (`pipeline worker start`)."""

from pipeline.cli.common import run_command
from pipeline.cli.worker import start

run_command(start)
