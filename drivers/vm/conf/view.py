"""Views: typed looks at the structs that callers send.

A struct stays the caller's own, with keys that we may not know; whoever wants to know what it says takes a view of it. It
promises that a view never invents: what cannot be meant is refused with the path of the field.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, TypeVar, get_args

import msgspec

from drivers.errors import Invalid
from drivers.vm.contract import truth

T = TypeVar("T")

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

_WIRE_NAMES = {"image_id": "imageID", "volume_id": "volumeID", "guid": "GUID", "uuid": "UUID", "max_vcpus": "maxVCpus"}
_KEPT = {f"{limit}_{unit}_sec" for limit in ("total", "read", "write") for unit in ("bytes", "iops")}


def wire_name(name: str) -> str:
    """How a field is called on the wire: camel case, but for a few."""
    first, *rest = name.split("_")
    return name if name in _KEPT else _WIRE_NAMES.get(name) or first + "".join(word.title() for word in rest)


class View(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name):
    """A typed look at a struct of the wire. Keys that have no field here are not looked at."""


def convert(value: object, kind: type[T], where: str = "") -> T:
    """Return `value` as `kind`. Numbers may come as text, truth values as text of which only 'true' says yes, and empty text
    is as good as absent."""
    try:
        return msgspec.convert(_read(value, kind), kind, strict=False)
    except msgspec.ValidationError as error:
        reason, at, path = str(error).rpartition(" - at `$")
        reason, path = (reason, path.rstrip("`")) if at else (str(error), "")
        raise Invalid(what=f"{where}{path}".lstrip(".") or "parameters", reason=reason) from None


def _read(value: object, kind: Any) -> object:
    if isinstance(value, dict):
        kinds = _fields(kind) if isinstance(kind, type) and issubclass(kind, View) else {}
        return {key: _read(item, kinds.get(key)) for key, item in value.items() if item != ""}
    if isinstance(value, list):
        return [_read(item, next(iter(get_args(kind)), None)) for item in value]
    return truth(value) if isinstance(value, str) and kind in (bool, bool | None) else value


@cache
def _fields(kind: type[View]) -> dict[str, Any]:
    """The types of a view's fields, by their names on the wire."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
