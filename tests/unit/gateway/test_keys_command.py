"""`pipeline keys create`: nobody gets a key that may do everything without having said so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.keys import app
from pipeline.errors import ConfigurationError


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The producer's, not made yet."""
    file = tmp_path / "producer.db"
    monkeypatch.setenv("PIPELINE_PRODUCER_DATABASE_URL", f"sqlite+aiosqlite:///{file}")
    return file


@pytest.mark.parametrize("said", [[], ["--all", "--scope", "read:*"]])
def test_what_a_key_may_do_has_to_be_said(database: Path, said: list[str]) -> None:
    ended = CliRunner().invoke(app, ["create", "shop", *said])

    assert isinstance(ended.exception, ConfigurationError)
    assert "say what the key may do: --scope publish:order.* and the like, or --all" in str(ended.exception)
    assert not database.exists()


@pytest.mark.parametrize(
    ("said", "may"),
    [
        (["--all"], ["publish:*", "read:*"]),
        (["--scope", "publish:order.*", "--scope", "read:payments"], ["publish:order.*", "read:payments"]),
    ],
)
def test_it_may_do_what_was_said(database: Path, said: list[str], may: list[str]) -> None:
    made = CliRunner().invoke(app, ["create", "shop", *said, "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["scopes"] == may

    (listed,) = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)["keys"]
    assert (listed["name"], listed["scopes"]) == ("shop", may)
