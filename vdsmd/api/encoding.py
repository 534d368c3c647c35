"""Values to XML-RPC documents.

It promises that what it writes, any XML-RPC reader reads back as the same values; and that what has no form on the wire
(None, an integer wider than 32 bits, a member without a name) is refused as `Unsendable`, with the path to it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 64
"""How deep arrays and structs may nest, in both directions."""


class Unsendable(Exception):
    """A value has no form on this wire. The path says which one."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path

    def inside(self, step: str) -> Unsendable:
        return Unsendable(self.reason, step + self.path)


class DateTime(str):
    """A dateTime.iso8601, kept as the text that came: YYYYMMDDTHH:MM:SS."""

    __slots__ = ()


_SPECIAL = "[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]"
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}

Write = Callable[[str], None]


def _escape(text: str) -> str:
    """Escape markup; what XML cannot hold at all becomes U+FFFD."""
    if text.isascii() and text.isprintable() and "&" not in text and "<" not in text and ">" not in text:
        return text
    # Compiled when it is first needed: that costs more than the whole import of this module.
    return re.sub(_SPECIAL, lambda match: _ESCAPES.get(match[0], "\ufffd"), text)


def _write_str(value: str, write: Write, _depth: int) -> None:
    write(f"<value><string>{_escape(value)}</string></value>")


def _write_int(value: int, write: Write, _depth: int) -> None:
    if not -(2**31) <= value < 2**31:
        raise Unsendable(f"{value} does not fit 32 bits")
    write(f"<value><int>{int(value)}</int></value>")


def _write_bool(value: bool, write: Write, _depth: int) -> None:
    write("<value><boolean>1</boolean></value>" if value else "<value><boolean>0</boolean></value>")


def _write_float(value: float, write: Write, _depth: int) -> None:
    if value - value != 0.0:
        raise Unsendable(f"{value} is not a number this wire can hold")
    write(f"<value><double>{float(value)!r}</double></value>")


def _write_bytes(value: bytes, write: Write, _depth: int) -> None:
    write(f"<value><base64>{binascii.b2a_base64(value, newline=False).decode('ascii')}</base64></value>")


def _write_datetime(value: DateTime, write: Write, _depth: int) -> None:
    write(f"<value><dateTime.iso8601>{_escape(value)}</dateTime.iso8601></value>")


def _write_list(values: list[Any] | tuple[Any, ...], write: Write, depth: int) -> None:
    write("<value><array><data>")
    index = 0
    try:
        for value in values:
            _write(value, write, depth)
            index += 1
    except Unsendable as error:
        raise error.inside(f"[{index}]") from None
    write("</data></array></value>")


def _write_dict(values: dict[Any, Any], write: Write, depth: int) -> None:
    write("<value><struct>")
    key: Any = None
    try:
        for key, value in values.items():
            if not isinstance(key, str):
                raise Unsendable("the name of a member must be a string")
            write(f"<member><name>{_escape(key)}</name>")
            _write(value, write, depth)
            write("</member>")
    except Unsendable as error:
        raise error.inside(f".{key}") from None
    write("</struct></value>")


# Exact types first, by one look-up; the order matters for the rest: a bool is an int too.
_WRITERS: dict[type, Callable[[Any, Write, int], None]] = {
    DateTime: _write_datetime,
    str: _write_str,
    bool: _write_bool,
    int: _write_int,
    float: _write_float,
    bytes: _write_bytes,
    list: _write_list,
    tuple: _write_list,
    dict: _write_dict,
}


def _write(value: Any, write: Write, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Unsendable(f"nested deeper than {MAX_DEPTH}")
    writer = _WRITERS.get(type(value)) or _writer_of(value)
    writer(value, write, depth + 1)


def _writer_of(value: Any) -> Callable[[Any, Write, int], None]:
    for kind, writer in _WRITERS.items():
        if isinstance(value, kind):
            return writer
    raise Unsendable("nothing (None) cannot be sent" if value is None else f"{type(value).__name__} cannot be sent")


def _document(before: str, values: Iterable[tuple[str, Any]], after: str) -> bytes:
    parts = ["<?xml version='1.0'?>", before]
    for label, value in values:
        parts.append("<param>")
        try:
            _write(value, parts.append, 0)
        except Unsendable as error:
            raise error.inside(label) from None
        parts.append("</param>")
    parts.append(after)
    return "".join(parts).encode()


def encode_call(name: str, args: Iterable[Any]) -> bytes:
    """Return the document of a call. Raises Unsendable."""
    before = f"<methodCall><methodName>{_escape(name)}</methodName><params>"
    labelled = ((f"argument {number}", value) for number, value in enumerate(args, 1))
    return _document(before, labelled, "</params></methodCall>")


def encode_reply(value: Any) -> bytes:
    """Return the document of a reply. Raises Unsendable."""
    return _document("<methodResponse><params>", [("reply", value)], "</params></methodResponse>")


def encode_fault(code: int, text: str) -> bytes:
    """Return the document of a fault."""
    parts: list[str] = ["<?xml version='1.0'?><methodResponse><fault>"]
    _write({"faultCode": code, "faultString": text}, parts.append, 0)
    parts.append("</fault></methodResponse>")
    return "".join(parts).encode()
