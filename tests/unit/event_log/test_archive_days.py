"""An archive's files are of UTC days, wherever the one who asks for a time lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.event_log.archive import Archive
from pipeline.event_log.records import Record


def record(offset: int, time: datetime) -> Record:
    attributes = {"specversion": "1.0", "id": f"e{offset}", "type": "order.created", "source": "test"}
    attributes |= {"time": time.isoformat().replace("+00:00", "Z"), "datacontenttype": "application/json"}
    return Record(offset, "events", "order.created", attributes, b"%d" % offset)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("hours", [-11, 0, 9, 14])
def test_a_time_in_any_zone_finds_the_utc_day_it_is_in(tmp_path: Path, form: str, hours: int) -> None:
    # Given events around a midnight in UTC
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    times = [midnight + timedelta(hours=each) for each in (-30, -5, -1, 1, 20)]
    archive = Archive.open_or_begin(tmp_path, "events.log", form)
    archive.add([record(offset, time) for offset, time in enumerate(times)], len(times))
    assert [part.day for part in archive.parts] == ["2026-11-19", "2026-11-20", "2026-11-21"]

    # When they are read from a time that is on another day where somebody lives
    start = (midnight - timedelta(hours=4)).astimezone(timezone(timedelta(hours=hours)))
    found = [each for batch in Archive.open(tmp_path).read(start, None) for each in batch]

    # Then the whole day it is in, in UTC, is read, and nothing before it
    assert [each.properties.message_id for each in found] == ["e1", "e2", "e3", "e4"]
