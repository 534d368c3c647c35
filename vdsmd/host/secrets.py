"""Secrets of storage, which disks of virtual machines need: what engines register, kept by libvirt.

It promises that nothing is registered of a list that has anything wrong in it, and that no error says what a secret is.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any, Protocol

import msgspec

from drivers.errors import DriverError, Failed, Invalid

KINDS = ("ceph", "iscsi", "volume")


class Keeper(Protocol):
    """libvirt, as far as secrets go."""

    def define(self, uuid: str, kind: str, usage_id: str, description: str, value: bytes) -> None: ...

    def undefine(self, uuid: str) -> None: ...

    def ours(self) -> list[str]: ...


class BadSecret(Invalid):
    wire = "secretBadRequestErr"


class NotRegistered(Failed):
    message = "Secrets could not be registered: {reason}"
    wire = "secretRegisterErr"


class NotUnregistered(Failed):
    message = "Secrets could not be unregistered: {reason}"
    wire = "secretUnregisterErr"


class Secret(msgspec.Struct, frozen=True):
    uuid: str
    kind: str
    usage_id: str
    description: str
    value: bytes


def register(keeper: Keeper, given: list[dict[str, Any]], *, clear: bool) -> None:
    """Have all of them kept; with `clear`, and no others of ours. Raises BadSecret, NotRegistered."""
    secrets = [_secret(index, each) for index, each in enumerate(given)]
    try:
        for old in keeper.ours() if clear else []:
            keeper.undefine(old)
        for each in secrets:
            keeper.define(each.uuid, each.kind, each.usage_id, each.description, each.value)
    except DriverError as error:
        raise NotRegistered(reason=error) from error


def unregister(keeper: Keeper, uuids: list[str]) -> None:
    """Have none of them kept. Raises BadSecret, NotUnregistered."""
    wanted = [_uuid(f"uuids[{index}]", each) for index, each in enumerate(uuids)]
    try:
        for each in wanted:
            keeper.undefine(each)
    except DriverError as error:
        raise NotUnregistered(reason=error) from error


def _secret(index: int, given: dict[str, Any]) -> Secret:
    where = f"secrets[{index}]"
    kind = given.get("usageType")
    if kind not in KINDS:
        raise BadSecret(what=f"{where}.usageType", reason=f"expected one of {', '.join(KINDS)}")
    return Secret(
        uuid=_uuid(f"{where}.uuid", given.get("uuid")),
        kind=str(kind),
        usage_id=_text(f"{where}.usageID", given.get("usageID")),
        description=_text(f"{where}.description", given.get("description", ""), empty=True),
        value=_value(f"{where}.password", given.get("password")),
    )


def _uuid(where: str, value: Any) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise BadSecret(what=where, reason="expected a uuid") from None


def _text(where: str, value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty) or not all(map(str.isprintable, value)):
        raise BadSecret(what=where, reason="expected a text")
    return value


def _value(where: str, value: Any) -> bytes:
    """Return the secret itself. Text is in base64; what comes as base64 by its type has been decoded."""
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(str(value) if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(what=where, reason="expected text in base64") from None
