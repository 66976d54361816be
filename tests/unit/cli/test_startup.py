"""The command line starts quickly: heavy libraries are imported where they are used."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = ("aio_pika", "aiormq", "sqlalchemy", "sqlmodel", "pydantic", "httpx2", "uvloop", "jsonschema_rs", "yaml")
MOST = 0.5  # seconds of processor time; a busy machine does not count against it


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, pipeline.cli.main; print(*[name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ""


def test_help_takes_less_than_half_a_second() -> None:
    taken = []
    for _ in range(3):  # the first may have to write bytecode
        process = subprocess.Popen([sys.executable, "-m", "pipeline", "--help"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        taken.append(usage.ru_utime + usage.ru_stime)
    assert min(taken) < MOST


def test_the_application_is_a_program_of_its_own() -> None:
    shown = subprocess.run([sys.executable, "-m", "workers", "--help"], capture_output=True, text=True, check=True)
    assert "--until-empty" in shown.stdout
