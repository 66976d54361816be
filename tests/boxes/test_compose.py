"""What compose.yaml promises, read from the file: there need be no Docker engine for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.broker.node_files import ADVANCED
from pipeline.settings import load_settings, variable_suffix
from pipeline.topology.load import load_topology

PROJECT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] == "event-pipeline"}
ENDING = {"db-upgrade", "topology", "cli"}  # these end by themselves
SUBSCRIPTIONS = [each.name for each in load_topology(PROJECT / "topology").topology.subscriptions.values()]
UNPRIVILEGED = ("pipeline", "postgres", "valkey", "rabbitmq", "haproxy")  # users that the images have


def test_every_box_of_the_picture_is_there() -> None:
    # given the subscriptions of the topology
    wanted = {"haproxy", "gateway-1", "gateway-2", "relay", "producer-db", "rabbitmq", "rabbitmq-2", "rabbitmq-3"}
    for name in SUBSCRIPTIONS:
        wanted |= {f"worker-{name}", f"{name}-db", f"{name}-cache"}
    # then each has a worker, a database and a cache, between the front door and the broker
    assert set(SERVICES) == wanted | ENDING


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] in UNPRIVILEGED
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") is True or service["image"].startswith("rabbitmq:")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ENDING))
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_databases_and_caches_can_not_be_reached_from_outside() -> None:
    assert COMPOSE["networks"]["back"]["internal"] is True
    for name, service in SERVICES.items():
        if name.endswith(("-db", "-cache")):
            assert service["networks"] == ["back"]
            assert "ports" not in service


@pytest.mark.parametrize("name", [name for name in OURS if name != "cli"])
def test_the_command_is_one_of_the_command_line(name: str) -> None:
    # when the command line is asked about the very words; options it does not know are errors here, too
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *OURS[name]["command"], "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # then it knows them, down to the last subcommand
    assert done.returncode == 0, done.stderr
    subcommands = [word for word in OURS[name]["command"][:2] if not word.startswith("-")]
    assert f"pipeline {' '.join(subcommands)} " in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", OURS)
def test_every_secret_is_a_file_that_the_settings_read(name: str, tmp_path: Path) -> None:
    # given the secrets as deploy/make-secrets writes them
    made = make_secrets(tmp_path)
    environment = {}
    for variable, value in OURS[name]["environment"].items():
        if variable.endswith("_FILE"):
            secret = value.removeprefix("/run/secrets/")
            assert secret in OURS[name]["secrets"], f"{variable} names a secret that {name} is not given"
            environment[variable] = str(made / secret)
    # when the service reads its settings
    settings = load_settings({**environment, "PIPELINE_STATE_DIR": str(tmp_path)})
    # then they name the boxes of this file, each with its own password
    assert settings.amqp_url == (made / "amqp_url").read_text().strip() or name == "db-upgrade"
    for subscription in SUBSCRIPTIONS:
        if f"PIPELINE_DATABASE_URL_{variable_suffix(subscription)}_FILE" in environment:
            assert f"@{subscription}-db:5432/{subscription}" in settings.database_of(subscription)
            assert f"@{subscription}-cache:6379/0" in settings.cache_of(subscription)


def test_a_worker_is_given_its_own_secrets_and_no_other() -> None:
    for name in SUBSCRIPTIONS:
        secrets = {"amqp_url", "management_url", f"{name}_database_url", f"{name}_cache_url"}
        assert set(SERVICES[f"worker-{name}"]["secrets"]) == secrets


def test_every_secret_is_made_and_none_is_written_down(tmp_path: Path) -> None:
    # when secrets are made, twice
    made = make_secrets(tmp_path)
    before = {path.name: path.read_text() for path in made.iterdir()}
    make_secrets(tmp_path)
    # then every secret of the compose file is there, and the second time changed nothing
    wanted = {each["file"].rpartition("/")[2] for each in COMPOSE["secrets"].values()}
    assert wanted <= set(before)
    assert {path.name: path.read_text() for path in made.iterdir()} == before
    # and they are random, long, and the folder is closed to others
    passwords = [text for name, text in before.items() if name.endswith("_password")]
    assert len(set(passwords)) == len(passwords)
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert made.stat().st_mode & 0o077 == 0
    # and no service has one in its environment, and no variable falls back to one
    for service in SERVICES.values():
        for variable, value in (service.get("environment") or {}).items():
            assert "PASS" not in variable or variable.endswith("_FILE")
            assert "://" not in str(value)
    assert not re.search(r"\$\{[A-Z_]*PASS[A-Z_]*", (PROJECT / "compose.yaml").read_text())


def test_nothing_starts_before_what_it_needs() -> None:
    # given what each service waits for
    def waits_for(name: str) -> dict[str, str]:
        return {each: how["condition"] for each, how in SERVICES[name].get("depends_on", {}).items()}

    # then tables and queues are there before anything of ours works, and gateways before the front door
    for name in OURS.keys() - ENDING:
        assert waits_for(name) == dict.fromkeys(("db-upgrade", "topology"), "service_completed_successfully")
    databases = {name for name in SERVICES if name.endswith("-db")}
    assert waits_for("db-upgrade") == dict.fromkeys(databases, "service_healthy")
    assert waits_for("topology")["rabbitmq"] == "service_healthy"
    assert waits_for("haproxy") == dict.fromkeys(("gateway-1", "gateway-2"), "service_healthy")
    # and a node of the cluster that is not asked for keeps nobody waiting
    peers = {name for name in SERVICES if SERVICES[name].get("profiles") == ["cluster"]}
    assert peers == {"rabbitmq-2", "rabbitmq-3"}
    assert all(SERVICES["topology"]["depends_on"][peer]["required"] is False for peer in peers)


def test_every_node_spreads_the_leaders_of_queues() -> None:
    assert COMPOSE["configs"]["leaders"]["content"].strip() == "queue_leader_locator = balanced"
    for node in ("rabbitmq", "rabbitmq-2", "rabbitmq-3"):
        assert "leaders" in {each["source"] for each in SERVICES[node]["configs"]}


def test_every_node_sends_retries_again_as_soon_as_the_private_node_does() -> None:
    assert COMPOSE["configs"]["retries"]["content"] == ADVANCED
    for node in ("rabbitmq", "rabbitmq-2", "rabbitmq-3"):
        assert {"source": "retries", "target": "/etc/rabbitmq/advanced.config"} in SERVICES[node]["configs"]


def test_haproxy_is_given_every_variable_its_configuration_asks_for() -> None:
    # given the one configuration that compose and `make up` share
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)\}", (PROJECT / "deploy/haproxy/haproxy.cfg").read_text()))
    haproxy = SERVICES["haproxy"]
    # then compose says each, and the gateways' ports are those they listen on
    assert asked == set(haproxy["environment"])
    assert any(volume.startswith("./deploy/haproxy/haproxy.cfg:") for volume in haproxy["volumes"])
    for number in (1, 2):
        port = haproxy["environment"][f"GATEWAY_{number}"].partition(":")[2]
        assert port in SERVICES[f"gateway-{number}"]["command"]


def make_secrets(folder: Path) -> Path:
    """What the script writes."""
    made = folder / "secrets"
    subprocess.run([PROJECT / "deploy/make-secrets", made], check=True, capture_output=True, timeout=60)
    return made
