"""Settings come from the environment: one database or cache for all subscriptions or one each, secrets by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings


def test_a_subscription_may_have_a_database_and_a_cache_of_its_own(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "PIPELINE_STATE_DIR": str(tmp_path),
            "PIPELINE_DATABASE_URL": "postgresql://all/db",
            "PIPELINE_DATABASE_URL_CARD_PAYMENTS": "postgresql://own/db",
            "PIPELINE_CACHE_URL_CARD_PAYMENTS": "redis://own",
        }
    )
    assert settings.database_of("card-payments") == "postgresql://own/db"
    assert settings.database_of("inventory") == "postgresql://all/db"
    assert settings.cache_of("card-payments") == "redis://own"
    assert settings.cache_of("inventory") == ""


def test_a_variable_may_be_given_as_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://user:secret@host/db\n")
    settings = load_settings(
        {
            "PIPELINE_STATE_DIR": str(tmp_path),
            "PIPELINE_DATABASE_URL_FILE": str(secret),
            "PIPELINE_DATABASE_URL_PAYMENTS_FILE": str(secret),
        }
    )
    assert settings.database_url == settings.database_of("payments") == "postgresql://user:secret@host/db"
    assert settings.own_database_urls == {"PAYMENTS": "postgresql://user:secret@host/db"}


def test_a_variable_given_twice_or_a_file_that_is_not_there_is_an_error_without_the_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PIPELINE_AMQP_URL and PIPELINE_AMQP_URL_FILE are both set") as error:
        load_settings({"PIPELINE_AMQP_URL": "amqp://u:secret@h", "PIPELINE_AMQP_URL_FILE": str(tmp_path / "x")})
    assert "secret" not in str(error.value)
    with pytest.raises(ConfigurationError, match=r"PIPELINE_AMQP_URL_FILE names .*/x, which can't be read"):
        load_settings({"PIPELINE_AMQP_URL_FILE": str(tmp_path / "x")})
