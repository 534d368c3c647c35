"""Show: answers for people. Tables are aligned, colour is only for terminals (https://no-color.org), and what came from
outside cannot play tricks with the terminal.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, TextIO

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_TONES = {
    "green": ("Up", "done", "connected", "up"),
    "yellow": ("Paused", "pending", "Powering up", "Powering down", "WaitForLaunch", "rehearsing", "quiescing"),
    "red": ("Down", "refused", "down", "Not Responding", "NotResponding"),
}
_TONE_OF = {word: tone for tone, words in _TONES.items() for word in words}
_NUMBER = re.compile(r"-?[0-9.]+%?( [KMGT]iB)?|")
WIDE = 100
"""Columns assumed where there is no terminal to ask."""


class Screen:
    """Where people read: knows about colour and width."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self.is_terminal = self._out.isatty()
        self.colours = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.width = _width(self._out) if self.is_terminal else WIDE

    def line(self, text: str = "") -> None:
        self._out.write(f"{text}\n")

    def paint(self, text: str, colour: str) -> str:
        return f"\033[{_COLOURS[colour]}m{text}\033[0m" if self.colours and text else text

    def tone(self, text: str) -> str:
        """Paint a status word in the colour of its meaning."""
        return self.paint(text, _TONE_OF[text]) if text in _TONE_OF else text

    def table(self, heads: list[str], rows: list[list[Any]], *, indent: str = "") -> None:
        """Write rows below heads, numbers to the right. On a terminal the last column ends with the screen."""
        cells = [[clean(value) for value in row] for row in rows]
        widths = [max(len(row[column]) for row in [heads, *cells]) for column in range(len(heads))]
        right = [bool(cells) and all(_NUMBER.fullmatch(row[column]) for row in cells) for column in range(len(heads))]
        self.line(self.paint((indent + _aligned(heads, widths, right)).rstrip(), "bold"))
        room = self.width - len(indent) - sum(widths[:-1]) - 2 * len(widths[:-1])
        for row in cells:
            if self.is_terminal and len(row[-1]) > room > 1:
                row[-1] = f"{row[-1][: room - 1]}…"
            padded = [_pad(text, widths[at], right[at]) for at, text in enumerate(row)]
            painted = [
                self.tone(text).join(pad.split(text, 1)) if text else pad for text, pad in zip(row, padded, strict=True)
            ]
            self.line((indent + "  ".join(painted)).rstrip())

    def value(self, value: Any, *, indent: str = "") -> None:
        """Write any value of the wire: structs as aligned lines, many structs that are alike as a table."""
        if isinstance(value, dict):
            if not self._fits_table(list(value.values()), indent, list(value)):
                self._struct(value, indent)
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            if not self._fits_table(value, indent):
                self._structs(value, indent)
        elif isinstance(value, list):
            for item in value:
                self.value(item, indent=indent)
        else:
            self.line(indent + self.tone(clean(value)))

    def _fits_table(self, structs: list[Any], indent: str, names: list[str] | None = None) -> bool:
        """Write flat structs with the same keys as a table, each after its name if it has one; say whether that could be."""
        if not all(isinstance(each, dict) and each and each.keys() == structs[0].keys() for each in structs):
            return False
        if not structs or not all(_is_flat(value) for each in structs for value in each.values()):
            return False
        rows = [[*([names[at]] if names else []), *each.values()] for at, each in enumerate(structs)]
        heads = [*([""] if names else []), *structs[0]]
        widths = [max(len(clean(cell)) for cell in column) for column in zip(heads, *rows, strict=True)]
        if len(indent) + sum(widths) + 2 * len(widths) > self.width:
            return False
        self.table(heads, rows, indent=indent)
        return True

    def _struct(self, struct: dict[str, Any], indent: str) -> None:
        room = max((len(key) for key, value in struct.items() if _is_flat(value)), default=0)
        for key, value in struct.items():
            if _is_flat(value):
                self._flat(
                    indent + self.paint(clean(key).ljust(room), "dim") + "  ", len(indent) + room + 2, clean(value)
                )
        for key, value in struct.items():
            if not _is_flat(value):
                self.line(indent + self.paint(clean(key), "bold"))
                self.value(value, indent=indent + "  ")

    def _structs(self, structs: list[dict[str, Any]], indent: str) -> None:
        for number, struct in enumerate(structs):
            if number:
                self.line()
            self._struct(struct, indent)

    def _flat(self, head: str, at: int, text: str) -> None:
        """Write a key with its value, folded at commas and spaces where it is longer than the screen is wide."""
        first, *more = _folded(text, max(20, self.width - at))
        self.line((head + self.tone(first)).rstrip())
        for part in more:
            self.line(" " * at + part)


def clean(value: Any) -> str:
    """Return a value in one line of text, without anything that a terminal would obey."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(clean, value))
    if isinstance(value, dict):
        return ", ".join(f"{clean(key)}={clean(item)}" for key, item in value.items())
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return _CONTROL.sub("\ufffd", text.replace("\n", " ").replace("\t", " "))


def _is_flat(value: Any) -> bool:
    """Say whether value fits behind its key: no struct that has something in it, no list that holds one."""
    if isinstance(value, dict):
        return not value
    return not (isinstance(value, list) and any(isinstance(item, dict | list) for item in value))


def _aligned(cells: list[str], widths: list[int], right: list[bool]) -> str:
    return "  ".join(_pad(text, width, to_right) for text, width, to_right in zip(cells, widths, right, strict=True))


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _folded(text: str, width: int) -> list[str]:
    lines = []
    while len(text) > width:
        at = max(text.rfind(",", 0, width), text.rfind(" ", 0, width)) + 1 or width
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*lines, text]


def _width(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or WIDE
    except (OSError, ValueError):
        return WIDE
