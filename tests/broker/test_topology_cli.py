"""`pipeline topology` as people and scripts use it: real processes, a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.broker import TestVhost, manage

PROJECT = Path(__file__).parents[2]
SHOP = """\
version: 1
exchanges: {events: {}}
events: {order.created: {}}
subscriptions: {payments: {events: [order.created], retry: {delays: [1s]}}}
"""


class Shell:
    """Runs `pipeline topology` on one file and one virtual host."""

    def __init__(self, folder: Path, vhost: TestVhost) -> None:
        self.folder = folder
        self.vhost = vhost

    def write(self, text: str) -> None:
        """The topology from now on."""
        (self.folder / "shop.yaml").write_text(text, encoding="utf-8")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        environ = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "PIPELINE_AMQP_URL": self.vhost.amqp_url,
            "PIPELINE_MANAGEMENT_URL": self.vhost.management_url,
            "PIPELINE_TOPOLOGY": str(self.folder),
        }
        command = [sys.executable, "-m", "pipeline", "topology", *words]
        return subprocess.run(
            command, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def shell(tmp_path: Path, vhost: TestVhost) -> Shell:
    shell = Shell(tmp_path, vhost)
    shell.write(SHOP)
    return shell


def test_plan_and_apply_until_there_is_nothing_to_do(shell: Shell) -> None:
    planned = shell.run("plan")
    assert (planned.returncode, planned.stderr) == (2, "")
    assert "+ queue    payments.retry.1s  quorum" in planned.stdout
    assert planned.stdout.endswith("8 to create; `pipeline topology apply` brings the broker to the files\n")

    applied = shell.run("apply")
    assert applied.returncode == 0
    assert applied.stdout.endswith("done: the broker is as the files say\n")

    again = shell.run("plan", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["steps"] == []


def test_what_needs_destruction_ends_with_3_and_is_named(shell: Shell) -> None:
    # given a queue of another type where the dead letters should be
    vhost = shell.vhost
    manage(vhost.management_url, "PUT", f"/api/queues/{vhost.name}/payments.dlq", {"durable": True})

    assert shell.run("plan").returncode == 3
    applied = shell.run("apply")

    assert applied.returncode == 3
    assert "✗ queue    payments.dlq  x-queue-type classic → quorum" in applied.stdout
    assert shell.run("plan", "--json").returncode == 3


def test_a_wrong_file_ends_with_2_and_all_errors(shell: Shell) -> None:
    shell.write(SHOP.replace("retry", "retries").replace("{events: {}}", "{events: {type: topik}}"))

    said = shell.run("validate")
    as_json = shell.run("validate", "--json")

    assert (said.returncode, said.stdout) == (2, "")
    assert (
        f"{shell.folder}/shop.yaml:4:53: subscriptions.payments.retries: unknown key (did you mean retry?)"
        in said.stderr
    )
    assert "2:28: exchanges.events.type" in said.stderr
    assert as_json.returncode == 2
    assert [problem["line"] for problem in json.loads(as_json.stdout)["problems"]] == [2, 4]


def test_warnings_do_not_hinder(shell: Shell) -> None:
    shell.write(SHOP.replace("{order.created: {}}", "{order.created: {}, order.paid: {}}"))

    said = shell.run("validate")

    assert said.returncode == 0
    assert "warning: events.order.paid: no subscription takes it" in said.stderr
    assert "is valid: 2 events, 1 subscription, 3 queues, 1 binding\n" in said.stdout


def test_show_draws_in_every_format(shell: Shell) -> None:
    beginnings = {
        "tree": "topology  1 event, 1 subscription\n",
        "mermaid": "flowchart LR\n",
        "svg": "<svg ",
        "json": "{\n",
    }
    drawn: dict[str, str] = {}
    for form, beginning in beginnings.items():
        shown = shell.run("show", "--format", form)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(beginning)
        assert "payments" in shown.stdout
        drawn[form] = shown.stdout

    written = shell.run("show", "--format", "svg", "--output", "shop.svg")
    assert written.returncode == 0
    assert (shell.folder / "shop.svg").read_text(encoding="utf-8") == drawn["svg"]
    assert shell.run("show", "--output", "no/such/folder.txt").returncode == 2


def test_the_schema_is_printed_as_json(shell: Shell) -> None:
    assert json.loads(shell.run("schema").stdout)["title"] == "pipeline topology"
