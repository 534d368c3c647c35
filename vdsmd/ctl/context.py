"""Context: what every command is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vdsmd.ctl.catalogue import Entry
from vdsmd.ctl.show import Screen
from vdsmd.ctl.wire import Client

DONE, FAILED, USAGE, REFUSED, PENDING = range(5)
"""Exit statuses."""


class Problem(Exception):
    """What a command cannot go on with, said so that the user can act on it."""


class Context:
    """The daemon to talk to, the screen to write to, and the options that were given."""

    def __init__(self, options: Any, client: Client, screen: Screen, entries: list[Entry]) -> None:
        self.options = options
        self.client = client
        self.screen = screen
        self.entries = entries

    def tell(self, value: Any, view: Callable[[Any], None]) -> None:
        """Write value as JSON for programs, or have `view(value)` write it for people."""
        if self.options.json:
            self.screen.line(as_json(value))
        else:
            view(value)


def as_json(value: Any, *, indent: int | None = 2) -> str:
    import json  # only who reads or writes it waits for its import

    return json.dumps(value, indent=indent, ensure_ascii=False, default=_text)


def from_json(text: str) -> Any:
    """Return the value. Raises ValueError."""
    import json

    return json.loads(text)


def _text(value: Any) -> str:
    """Bytes have no form in JSON; they are shown as on the wire."""
    import binascii

    return binascii.b2a_base64(value, newline=False).decode("ascii")
