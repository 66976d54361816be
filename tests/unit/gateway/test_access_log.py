"""What the log says of a request, and what it must not say."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from pipeline.gateway.access_log import AccessLog

SECRET = "4000-0000-0000-0002"


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    """As a model's own validator may: its error's words are what was sent."""
    raise KeyError(SECRET)


async def test_an_unforeseen_error_is_told_by_place_and_never_by_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/events/a", "raw_path": b"/events/a"}
    # given logs as they are written
    with structlog.testing.capture_logs() as lines:
        await AccessLog(fails, lambda: False)(scope, receive, send)
    # then the line says where, the answer 500, and neither has the data
    (failed,) = [line for line in lines if line["event"] == "request failed"]
    assert (failed["error"], failed["at"][-1].split()[-1]) == ("KeyError", "fails")
    assert sent[0]["status"] == 500
    assert SECRET not in f"{lines} {sent} {capsys.readouterr()}"
    assert not any("exc_info" in line for line in lines)
