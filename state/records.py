"""Records: typed data that outlives the run that wrote it.

A record's declaration is the only description of its format: the encoder and the decoder both read it. It promises that
what does not fit the declaration is refused with the path of the bad field, and never half accepted.

Versions. A new field has a default and needs nothing else. A changed or removed field is a new `version`, with a migration
from the one before. `readable_by` is the oldest version whose release can still read what we write by ignoring fields it
does not know: it is what makes going back to the previous release possible.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

Plain = dict[str, Any]
Migration = Callable[[Plain], Plain]
R = TypeVar("R", bound="Record")

MAGIC = b"vdsmd"
FORMAT = 1


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: text that is no UTF-8 is not among its own errors, nor is data that is nested too deeply."""


class RecordError(ValueError):
    """Stored data cannot be used. The text says where and why."""


class Part(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A struct inside a record. It evolves by new fields with defaults only."""


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of all records."""

    version: ClassVar[int] = 1
    readable_by: ClassVar[int] = 1
    migrations: ClassVar[dict[int, Migration]] = {}
    """`migrations[n]` turns the plain data of version n into that of version n + 1."""


class Entry(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One encoded record, as it stands in documents and checkpoints."""

    version: int
    readable_by: int
    data: msgspec.Raw


def encode(record: Record) -> Entry:
    kind = type(record)
    return Entry(version=kind.version, readable_by=kind.readable_by, data=msgspec.Raw(msgspec.json.encode(record)))


def decode(kind: type[R], entry: Entry, where: str) -> R:
    """Return the entry as a `kind`, migrated if it is older. Raises RecordError; `where` begins the path in its text."""
    if entry.version == kind.version:
        try:
            return msgspec.json.decode(entry.data, type=kind)
        except UNREADABLE as error:
            raise RecordError(_located(where, error)) from error
    plain = _plain(entry.data, where)
    if entry.version > kind.version:
        return _read_newer(kind, entry, plain, where)
    return _convert(kind, _migrate(kind, entry.version, plain, where), where)


def pack(value: Any) -> bytes:
    """Return value as the bytes of a file: one line with format, length and checksum, then JSON."""
    body = msgspec.json.encode(value)
    return b"%s %d %d %08x\n%s" % (MAGIC, FORMAT, len(body), zlib.crc32(body), body)


def unpack(kind: type[Any], data: bytes, where: str) -> Any:
    """Return what `pack` stored, as a `kind`. Raises RecordError on anything cut, damaged, foreign or of another format."""
    head, _, body = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 4 or words[0] != MAGIC:
        raise RecordError(f"{where}: this is not a file of vdsmd")
    if words[1] != b"%d" % FORMAT:
        raise RecordError(f"{where}: file format {words[1]!r} is not known here")
    if words[2] != b"%d" % len(body):
        raise RecordError(f"{where}: the file is cut: {len(body)} bytes of {words[2].decode('ascii', 'replace')}")
    if words[3] != b"%08x" % zlib.crc32(body):
        raise RecordError(f"{where}: the checksum is wrong, the file is damaged")
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise RecordError(_located(where, error)) from error


def _plain(data: msgspec.Raw, where: str) -> Plain:
    try:
        plain = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise RecordError(_located(where, error)) from error
    if not isinstance(plain, dict):
        raise RecordError(f"{where}: expected an object")
    return plain


def _convert(kind: type[R], plain: Plain, where: str) -> R:
    try:
        return msgspec.convert(plain, kind)
    except UNREADABLE as error:
        raise RecordError(_located(where, error)) from error


def _migrate(kind: type[R], version: int, plain: Plain, where: str) -> Plain:
    for step in range(version, kind.version):
        if step not in kind.migrations:
            raise RecordError(f"{where}: no way from version {step} to {kind.version}")
        try:
            plain = kind.migrations[step](plain)
        except Exception as error:
            # A migration meets data that nobody foresaw; whatever it raises means the same thing.
            raise RecordError(f"{where}: migration from version {step} failed: {error!r}") from error
    return plain


STEPS = re.compile(r"\.(\w+)|\[")
"""The steps of msgspec's paths: `.name` gives the name, `[0]` and `[...]` give ''."""
UNKNOWN = re.compile(r"unknown field `(?P<field>.*?)`(?: - at `\$(?P<path>.*?)`)?$", re.DOTALL)


def _read_newer(kind: type[R], entry: Entry, plain: Plain, where: str) -> R:
    """Read what a newer release wrote, leaving out the fields we do not know, if it says that this is right."""
    if entry.readable_by > kind.version:
        raise RecordError(
            f"{where}: version {entry.version} can be read from version {entry.readable_by} on, this release has {kind.version}"
        )
    while True:
        try:
            return msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            found = UNKNOWN.search(str(error))
            if found is None or not _prune(plain, STEPS.findall(found["path"] or ""), found["field"]):
                raise RecordError(_located(where, error)) from error


def _prune(value: Any, path: list[str], field: str) -> bool:
    """Remove `field` at path, in all elements of the lists and objects on the way. Say whether anything was removed."""
    if not path:
        return isinstance(value, dict) and value.pop(field, path) is not path
    step, rest = path[0], path[1:]
    if not step:
        below = value if isinstance(value, list) else list(value.values())
        return sum(_prune(item, rest, field) for item in below) > 0  # in all of them, not only the first
    return isinstance(value, dict) and step in value and _prune(value[step], rest, field)


def _located(where: str, error: Exception) -> str:
    return f"{where}: {str(error).replace('`$', f'`{where}')}"
