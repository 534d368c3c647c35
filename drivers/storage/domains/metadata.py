"""The metadata of a storage domain: lines of KEY=value, sorted, with a checksum as the last one.

It promises that what was written here is read the same by other implementations of the format and the other way round, that
keys which are not known here are kept, and that a text which its checksum does not match is never believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TypeVar

from drivers.storage.contract import BLANK, LONGEST_DESCRIPTION, READABLE, Class, Domain, Role, Type, is_uuid
from drivers.storage.errors import (
    DescriptionTooLong,
    InvalidParameter,
    MetadataInvalid,
    MetadataKeyMissing,
    MetadataTooLong,
    SealBroken,
    UnsupportedVersion,
)
from drivers.storage.outside.frames import LONGEST

CHECKSUM = "_SHA_CKSUM"
TEXTS = ("DESCRIPTION", "POOL_DESCRIPTION")
"""Values that people write: what is not ASCII in them stands as character references."""
_REFERENCE = re.compile(r"&#([0-9]{1,7});")
_NOT_PLAIN = re.compile(r"[\x00-\x1f\x7f]|&(?=#[0-9])")
_NOT_SENT = re.compile("[^\\t\\n\\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no document of XML can hold."""
_KEY = re.compile(r"[^\s=]+")
_JOINED = re.compile(r"\s+[A-Z][A-Z_]*=")
"""What follows a key without a value, when the end of its line is damaged."""

Fields = dict[str, str]
T = TypeVar("T", Type, Class)


def checksum(fields: Mapping[str, str]) -> str:
    """Return the checksum over the fields, as the format has it: the sorted lines, without anything between them."""
    lines = "".join(f"{key}={value.strip()}" for key, value in sorted(fields.items()) if key != CHECKSUM)
    return hashlib.sha1(lines.encode("ascii", "xmlcharrefreplace"), usedforsecurity=False).hexdigest()


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the file's bytes. A checksum among the fields is replaced. Raises MetadataTooLong: nobody could read it again."""
    kept = {key: value.strip() for key, value in fields.items() if key != CHECKSUM}
    lines = [f"{key}={value}" for key, value in sorted(kept.items())]
    text = "\n".join([*lines, f"{CHECKSUM}={checksum(kept)}", ""])
    data = text.encode("ascii", "xmlcharrefreplace")
    if len(data) > LONGEST:
        raise MetadataTooLong(what=fields.get("SDUUID", ""), length=len(data), limit=LONGEST)
    return data


def decode(data: bytes, what: str) -> Fields:
    """Return the fields, without the checksum, which is checked if there is one. Raises SealBroken and MetadataInvalid; `what`
    names the domain in them."""
    fields = dict(_split(line, what) for line in _text(data, what).split("\n") if line.strip())
    found = fields.pop(CHECKSUM, None)
    computed = checksum(fields)
    if found is not None and found != computed:
        raise SealBroken(what=what, computed=computed, found=ascii(found[:80]))
    return fields


def _text(data: bytes, what: str) -> str:
    try:
        text = data.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise MetadataInvalid(
            what=what, reason=f"it is no text: byte {error.start} is {data[error.start]:#x}"
        ) from error
    if "\0" in text:
        raise MetadataInvalid(what=what, reason="it is no text: there are zero bytes in it")
    return text


def _split(line: str, what: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()):
        raise MetadataInvalid(what=what, reason=f"not a line of KEY=value: {line[:60]!a}")
    if _JOINED.match(value):
        # The checksum does not see it: it is over what the lines say, without their ends.
        raise MetadataInvalid(what=what, reason=f"two lines have become one: {line[:60]!a}")
    return key.strip(), value.strip()


def spelled(text: str) -> str:
    """Return what people wrote as it stands in the file: on one line, and unlike any character reference."""
    return _NOT_PLAIN.sub(lambda found: f"&#{ord(found[0])};", text.strip())


def unspelled(text: str) -> str:
    """Return what people wrote, from what stands in the file."""
    return shown(_REFERENCE.sub(_letter, text))


def shown(text: str) -> str:
    """Return a text out of somebody's file as it can be sent to clients, whatever is in it."""
    return _NOT_SENT.sub("\ufffd", text)


def _letter(found: re.Match[str]) -> str:
    number = int(found[1])
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else found[0]


def description(text: str) -> str:
    """Return a description as it stands in the file. Raises DescriptionTooLong and InvalidParameter."""
    if len(text) > LONGEST_DESCRIPTION:
        raise DescriptionTooLong(length=len(text), limit=LONGEST_DESCRIPTION)
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise InvalidParameter(what="description", reason="it is not made of characters")
    return spelled(text)


def domain(fields: Fields, uuid: str, path: str) -> Domain:
    """Return the domain that the fields describe. Raises MetadataInvalid, MetadataKeyMissing, UnsupportedVersion."""
    if required(fields, "SDUUID", uuid).lower() != uuid:
        raise MetadataInvalid(what=uuid, reason=f"it is that of {fields['SDUUID'][:80]!a}")
    version = number(fields, "VERSION", uuid)
    if version not in READABLE:
        raise UnsupportedVersion(version=version, reason=f"domain {uuid}; these are: {', '.join(map(str, READABLE))}")
    return Domain(
        uuid=uuid,
        path=path,
        type=_named(Type, required(fields, "TYPE", uuid), uuid),
        cls=_named(Class, required(fields, "CLASS", uuid), uuid),
        version=version,
        remote_path=fields.get("REMOTE_PATH", ""),
        block_size=number(fields, "BLOCK_SIZE", uuid, 512),
        alignment=number(fields, "ALIGNMENT", uuid, 1 << 20),
    )


def _named(kind: type[T], name: str, uuid: str) -> T:
    try:
        return kind[name.upper()]
    except KeyError:
        raise MetadataInvalid(what=uuid, reason=f"{kind.__name__.upper()} {name[:80]!a} is not known") from None


def required(fields: Mapping[str, str], key: str, what: str) -> str:
    """Raises MetadataKeyMissing."""
    if key not in fields:
        raise MetadataKeyMissing(what=what, key=key, kind="key", name=key)
    return fields[key]


def number(fields: Mapping[str, str], key: str, what: str, default: int | None = None) -> int:
    """Return the number that a field holds. Raises MetadataKeyMissing without a default, and MetadataInvalid."""
    if default is not None and not fields.get(key):
        return default
    text = required(fields, key, what)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise MetadataInvalid(what=what, reason=f"{key} is no number: {text[:80]!a}")
    return int(text)


def pools(fields: Mapping[str, str]) -> list[str]:
    """Return the pools that the domain is attached to."""
    listed = (pool.strip().lower() for pool in fields.get("POOL_UUID", "").split(","))
    return [pool for pool in listed if is_uuid(pool) and pool != BLANK]


def fresh(made: Domain, name: str) -> Fields:
    """Return the fields of a new domain that is called `name`, in no pool."""
    fields = {
        "CLASS": made.cls.label,
        "DESCRIPTION": spelled(name),
        "IOOPTIMEOUTSEC": "10",
        "LEASERETRIES": "3",
        "LEASETIMESEC": "60",
        "LOCKPOLICY": "ON" if made.version == 0 else "",
        "LOCKRENEWALINTERVALSEC": "5",
        "POOL_UUID": "",
        "REMOTE_PATH": made.remote_path,
        "ROLE": str(Role.REGULAR),
        "SDUUID": made.uuid,
        "TYPE": made.type.name,
        "VERSION": str(made.version),
    }
    if made.version >= 5:
        fields |= {"ALIGNMENT": str(made.alignment), "BLOCK_SIZE": str(made.block_size)}
    return fields


def info(fields: Mapping[str, str], found: Domain) -> dict[str, object]:
    """Return what clients are told of a domain."""
    return {
        "uuid": found.uuid,
        "type": found.type.name,
        "class": found.cls.label,
        "name": unspelled(fields.get("DESCRIPTION", "")),
        "role": role(fields),
        "pool": pools(fields),
        "version": str(found.version),
        "remotePath": shown(found.remote_path),
        "lver": _or(fields, "POOL_SPM_LVER", -1),
        "spm_id": _or(fields, "POOL_SPM_ID", -1),
        "master_ver": _or(fields, "MASTER_VERSION", 0),
    }


def role(fields: Mapping[str, str]) -> str:
    """Return Master or Regular."""
    said = fields.get("ROLE", "").capitalize()
    return said if said in (Role.MASTER, Role.REGULAR) else str(Role.REGULAR)


def _or(fields: Mapping[str, str], key: str, default: int) -> int:
    try:
        value = number(fields, key, "", default)
    except MetadataInvalid:
        return default
    return value if -(2**31) <= value < 2**31 else default
