"""What a caller may do. In: scopes as text, `publish:order.*`. Out: whether an action on a name is allowed.

`publish:` is about event types, `read:` about event types and subscriptions. `*` stands for any characters, dots too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigurationError
from pipeline.gateway.problems import refused

LONGEST_NAME = 255  # characters shown of a name that was asked for

Action = Literal["publish", "read"]
SCOPE = re.compile(r"(publish|read):[^\s:]{1,200}")
EVERYTHING = ("publish:*", "read:*")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: `id` is for logs and for telling callers apart, and no secret."""

    id: str
    scopes: tuple[str, ...]

    def may(self, action: Action, name: str) -> bool:
        """Whether one of the scopes allows it."""
        return any(_allows(scope, action, name) for scope in self.scopes)

    def may_any(self, action: Action) -> bool:
        """Whether there is a scope for the action at all."""
        return any(scope.startswith(f"{action}:") for scope in self.scopes)

    def require(self, action: Action, name: str) -> None:
        """Raises: Refused (403)."""
        if not self.may(action, name):
            raise refused(403, "scope", f"these credentials don't have the scope {action}:{name[:LONGEST_NAME]}")


def checked(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes, if they can be. Raises: ConfigurationError."""
    found = tuple(scopes)
    for scope in found:
        if SCOPE.fullmatch(scope) is None:
            raise ConfigurationError(f"{scope!r} is no scope; they look like publish:order.created or read:payments.*")
    if not found:
        raise ConfigurationError("a key without a scope could do nothing; give --scope publish:order.* or the like")
    return found


def _allows(scope: str, action: str, name: str) -> bool:
    of, _, pattern = scope.partition(":")
    return of == action and (pattern == "*" or matches(pattern, name))


def matches(pattern: str, name: str) -> bool:
    """Whether `name` is as `pattern` says, `*` in it being any characters."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    end = len(name) - len(last)
    if not name.startswith(first) or not name.endswith(last) or len(first) > end:
        return False
    at = len(first)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
