"""A store on a real SQLite file, and a look into that file that goes past the library."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from pipeline.store import Effects, Store, Write
from tests.unit.store.models import TABLES

Look: TypeAlias = Callable[..., list[tuple[Any, ...]]]
NUMBERS = count(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "payments.db"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/data/{{subscription}}.db?timeout=0.2"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await Store.open(url, "payments", TABLES)
    yield opened
    await opened.close()


@pytest.fixture
def look(file: Path) -> Look:
    """Rows of a query, or the effect of a statement, through a connection of its own."""

    def rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return rows


def effects(*writes: Write, event_id: str = "", **more: Any) -> Effects:
    """Effects of an event; its id is made up when none is given."""
    return Effects(event_id or f"e{next(NUMBERS)}", "order.created", writes, **more)
