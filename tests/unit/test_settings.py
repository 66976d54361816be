"""Settings come from the environment: one database or cache for all subscriptions or one each, secrets by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, load_settings


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


# --- a cluster's addresses ---


def broker_settings(tmp_path: Path, url: str) -> Settings:
    return load_settings({"PIPELINE_STATE_DIR": str(tmp_path), "PIPELINE_AMQP_URL": url})


@pytest.mark.parametrize(
    ("url", "management"),
    [
        ("amqp://u:p@one/v", "http://u:p@one:15672"),
        ("amqp://one", "http://guest:guest@one:15672"),
        ("amqps://u:p@one:5671,two,one:5673/v", "https://u:p@one:15671,two:15671"),
        ("amqp://u:p@[::1]:5672/v", "http://u:p@[::1]:15672"),
        ("amqp://u:p@one,[fd00::2]:5673/v?cafile=a,b", "http://u:p@one:15672,[fd00::2]:15672"),
        ("amqp://u:p%40w%2Fd@one,two/", "http://u:p%40w%2Fd@one:15672,two:15672"),
    ],
)
def test_the_management_api_is_looked_for_on_every_node(tmp_path: Path, url: str, management: str) -> None:
    assert broker_settings(tmp_path, url).management_url == management


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://u:hunter2@one,,two/v", "an address is missing before or behind a comma"),
        ("amqp://u:hunter2@one,/v", "an address is missing before or behind a comma"),
        ("amqp://u:hunter2@one,u:hunter2@two/v", "only the first has user and password before it"),
        ("amqp://u:hunter2@one:5672,two:port/v", "something is wrong with its host or port"),
        ("amqp://u:hunter2@one,[::1/v", "something is wrong with its host or port"),
        ("http://u:hunter2@one,two/v", "amqp://user:password@host1:5672,host2:5672/vhost"),
        ("amqp://u:hunter2@one,:5672/v", "amqp://user:password@host1:5672,host2:5672/vhost"),
    ],
)
def test_addresses_that_can_not_be_read_are_an_error_without_the_password(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        broker_settings(tmp_path, url)
    assert says in str(error.value)
    assert "hunter2" not in str(error.value)


def test_addresses_of_the_management_api_are_checked_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PIPELINE_MANAGEMENT_URL can't be read: an address is missing"):
        load_settings({"PIPELINE_STATE_DIR": str(tmp_path), "PIPELINE_MANAGEMENT_URL": "http://u:p@one:15672,,two"})
