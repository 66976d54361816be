"""Schedules in the topology file: what is taken, and what is wrong with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import TopologyError
from pipeline.topology.expand import expand
from pipeline.topology.load import load_text
from pipeline.topology.model import Schedule

EVENTS = "version: 1\nexchanges: {events: {}}\nevents: {report.due: {}}\nsubscriptions: {s: {events: [report.due]}}\n"


def schedule(text: str) -> Schedule:
    """The one schedule `x` in `text`."""
    return load_text(f"{EVENTS}schedules: {{x: {text}}}\n", "t.yaml").topology.schedules["x"]


def test_a_cron_rule() -> None:
    found = schedule('{cron: "0 6 * * MON-FRI", timezone: Europe/Berlin, event: report.due, data: {of: [1, {a: b}]}}')

    assert found == Schedule("x", "report.due", {"of": [1, {"a": "b"}]}, "0 6 * * MON-FRI", "Europe/Berlin", 0, "once")
    assert found.rule == "0 6 * * MON-FRI Europe/Berlin"


def test_a_period() -> None:
    found = schedule("{every: 5m, event: report.due, missed: all}")

    assert found == Schedule("x", "report.due", {}, every=300, missed="all")
    assert found.rule == "every 5m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{event: report.due}", "5:13: schedules.x: cron or every is missing"),
        ('{every: 5m, cron: "* * * * *", event: report.due}', "5:17: schedules.x.every: can't stand beside cron"),
        ("{every: 1.5s, event: report.due}", "5:24: schedules.x.every: must be whole seconds"),
        ("{every: 100ms, event: report.due}", "5:24: schedules.x.every: is 100ms; it must be 1s to 366d"),
        ("{every: 5m}", "5:13: schedules.x: event is missing"),
        ("{every: 5m, event: report.du}", "5:35: schedules.x.event: no event report.du is declared (did you mean"),
        ('{cron: "61 * * * *", event: report.due}', "5:23: schedules.x.cron: bad minute in '61 * * * *'"),
        ('{cron: "* * * *", event: report.due}', "5:23: schedules.x.cron: has 4 fields; it must have five"),
        ('{cron: "* * * * * *", event: report.due}', "5:23: schedules.x.cron: has 6 fields; it must have five"),
        ('{cron: "0 0 30 2 *", event: report.due}', "5:23: schedules.x.cron: bad day-of-month in '0 0 30 2 *'"),
        ('{cron: "0 0 */31 * MON#5", event: report.due}', "5:23: schedules.x.cron: 0 0 */31 * MON#5 never comes"),
        (
            '{cron: "* * * * *", timezone: Europe/Berln, event: report.due}',
            "5:46: schedules.x.timezone: there is no time zone Europe/Berln (did you mean Europe/Berlin?)",
        ),
        ("{every: 5m, timezone: UTC, event: report.due}", "5:28: schedules.x.timezone: is only for cron"),
        ("{every: 5m, event: report.due, missed: never}", "5:55: schedules.x.missed: 'never' is not possible here"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(TopologyError) as caught:
        schedule(text)

    assert f"t.yaml:{said}" in str(caught.value)


def test_data_is_checked_against_the_events_schema(tmp_path: Path) -> None:
    # given an event with a schema
    (tmp_path / "report.json").write_text(json.dumps({"type": "object", "required": ["day"]}))
    text = EVENTS.replace("report.due: {}", "report.due: {schema: report.json}")
    file = str(tmp_path / "t.yaml")

    # then data that does not fit is refused where it stands, and data that fits is taken
    with pytest.raises(TopologyError, match=r't\.yaml:5:\d+: schedules\.x\.data: .*"day" is a required property'):
        load_text(f"{text}schedules: {{x: {{every: 5m, event: report.due, data: {{n: 1}}}}}}\n", file)
    with pytest.raises(TopologyError, match=r"t\.yaml:5:\d+: schedules\.x: .*does not fit the schema"):
        load_text(f"{text}schedules: {{x: {{every: 5m, event: report.due}}}}\n", file)
    load_text(f"{text}schedules: {{x: {{every: 5m, event: report.due, data: {{day: 1}}}}}}\n", file)


def test_schedules_need_one_queue_that_has_one_active_consumer() -> None:
    objects = expand(load_text(f"{EVENTS}schedules: {{x: {{every: 5m, event: report.due}}}}\n").topology)

    assert objects.queues["pipeline.scheduler"].arguments == {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
    }
    assert objects.policies["pipeline._scheduler"].pattern == "^pipeline[.]scheduler$"
    assert "pipeline.scheduler" not in expand(load_text(EVENTS).topology).queues


def test_a_queue_of_that_name_is_refused() -> None:
    with pytest.raises(TopologyError, match="the schedulers have a queue of this name"):
        load_text(f"{EVENTS}schedules: {{x: {{every: 5m, event: report.due}}}}\nqueues: {{pipeline.scheduler: {{}}}}\n")


def test_schedules_and_the_ladder_may_stand_in_any_file_and_once_only(tmp_path: Path) -> None:
    from pipeline.topology.load import load_topology

    (tmp_path / "a.yaml").write_text(
        f"{EVENTS}delay: {{max: 1h}}\nschedules: {{x: {{every: 5m, event: report.due}}}}\n"
    )
    (tmp_path / "b.yaml").write_text("version: 1\nschedules: {y: {every: 6m, event: report.due}}\n")
    assert set(load_topology(tmp_path).topology.schedules) == {"x", "y"}

    (tmp_path / "c.yaml").write_text("version: 1\ndelay: {max: 2h}\n")
    with pytest.raises(TopologyError, match=r"c\.yaml:2:1: delay: is declared twice \(first at .*a\.yaml:5:1\)"):
        load_topology(tmp_path)
