"""One cluster for the test session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.broker.locate import programs
from tests.support.broker import PROJECT
from tests.support.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes that run as one cluster. Tests that kill nodes may leave them dead."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-cluster-"))
    made = Cluster(folder, programs(PROJECT / ".pipeline", print))
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
