"""Words: the values that engines send, as types. They write names in either case, and numbers and truths as text.

It promises that a value is understood, or refused as what the caller calls it.
"""

from __future__ import annotations

from typing import Any

from drivers.errors import Invalid
from drivers.network.errors import BadParams

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

Attributes = dict[str, Any]


def attributes(what: str, given: Any) -> Attributes:
    """Return a struct with its names in lower case. Raises BadParams."""
    if not isinstance(given, dict):
        raise BadParams(what=what, reason="expected a struct")
    found = {str(name).lower(): value for name, value in given.items()}
    if len(found) != len(given):
        raise BadParams(what=what, reason="two names differ in case only")
    return found


def text(given: Attributes, key: str) -> str:
    """Return a string, '' for none. Raises BadParams."""
    value = given.get(key) or ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadParams(what=key, reason="expected a string")
    return str(value).strip()


def truth(given: Attributes, key: str, otherwise: bool) -> bool:
    """Return what is meant by a boolean, a number, or one of the words that network scripts have always known."""
    value = given.get(key)
    if isinstance(value, str):
        value = value.strip().lower()
    if value is None or value == "":
        return otherwise
    if isinstance(value, str) and value in (*YES, *NO):
        return value in YES
    if not isinstance(value, (bool, int)):
        raise BadParams(what=key, reason="expected true or false")
    return bool(value)


def number(given: Attributes, key: str, meaning: type[Invalid] = BadParams) -> int | None:
    """Return a whole number, None for none. Raises `meaning`."""
    value = given.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise meaning(what=key, reason="expected a number")
    said = str(value).strip()
    digits = said.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise meaning(what=f"{key} {said!r}", reason="expected a number")
    return int(said)
