"""Structured logs. In: events named in words with fields. Out: JSON lines off a terminal, readable lines on one."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache

import structlog

Logger = structlog.typing.FilteringBoundLogger

_SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key", "cookie")


def _hide_secrets(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in fields:
        if _is_secret(name):
            fields[name] = "***"
    return fields


@lru_cache(1024)  # names of fields are few, lines are many
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def configure(level: str = "info", as_json: bool | None = None) -> None:
    """Send logs of `level` and above to standard error. `as_json` None decides by whether that is a terminal."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(pad_event_to=32)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.format_exc_info if as_json else _as_is,
            _in_order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # The client libraries print tracebacks for a lost connection; we report it ourselves, in a sentence.
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _in_order(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how bad and what first: lines are read by people, too."""
    first = {name: fields.pop(name) for name in ("timestamp", "level", "component", "event") if name in fields}
    return {**first, **fields}


def _as_is(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return fields


def get_logger(name: str) -> Logger:
    """A logger whose lines carry `component=name`."""
    logger: Logger = structlog.get_logger(component=name)
    return logger
