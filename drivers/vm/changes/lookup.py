"""Which device of a machine a caller means.

It promises exactly one device, or NoSuchDevice: never the one that is merely the likeliest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.errors import Invalid, MissingParameter
from drivers.vm.errors import ImageUnavailable, NoSuchDevice

Struct = dict[str, Any]

_IDS = ("poolID", "domainID", "imageID", "volumeID")
_NAMES = ("GUID", "UUID", "path", "name", "alias", "serial")


def of_kind(conf: Struct, kind: str) -> list[Struct]:
    return [device for device in conf["devices"] if device.get("type") == kind]


def disk(conf: Struct, said: Struct) -> Struct:
    """Return the disk that `said` names: by the ids of its volume, by GUID, UUID, path, or by name or alias."""
    ids = [key for key in _IDS if said.get(key)]
    names = [key for key in _NAMES if said.get(key)]

    def fits(device: Struct) -> bool:
        agree = all(device.get(key) in (said[key], None, "") for key in ids)
        by_ids = bool(ids) and agree and all(device.get(key) for key in ids if key in ("imageID", "volumeID"))
        by_name = any(device.get(key) == said[key] for key in names)
        contradicted = any(device.get(key) not in (said[key], None, "") for key in names)
        return agree and not contradicted and (by_ids or by_name)

    return _only(of_kind(conf, "disk"), fits, "disk", _shown(said, (*ids, *names)))


def image(conf: Struct, said: Struct) -> Struct:
    """The same, where callers know a disk by its image. Raises ImageUnavailable."""
    try:
        return disk(conf, said)
    except NoSuchDevice as error:
        raise ImageUnavailable(reason=error) from error


def nic(conf: Struct, said: Struct) -> Struct:
    """Return the network card that `said` names: by MAC address, or else by alias or name."""
    mac, others = str(said.get("macAddr", "")).lower(), [key for key in ("alias", "name") if said.get(key)]

    def fits(device: Struct) -> bool:
        if mac:
            return str(device.get("macAddr", "")).lower() == mac
        return bool(others) and all(device.get(key) == said[key] for key in others)

    return _only(of_kind(conf, "interface"), fits, "nic", _shown(said, ("macAddr", "alias", "name")))


def drive_for(conf: Struct, kind: str, said: Struct) -> Struct:
    """Return the drive for removable media of the kind ('cdrom' or 'floppy'): the one that `said` names, else the first
    that holds no payload."""
    drives = [device for device in of_kind(conf, "disk") if device.get("device") == kind]
    if any(said.get(key) for key in ("name", "alias")):
        return _only(
            drives, lambda d: all(d.get(k) == said[k] for k in ("name", "alias") if said.get(k)), kind, str(said)
        )
    own = [drive for drive in drives if not (drive.get("specParams") or {}).get("vmPayload")]
    if not own:
        raise NoSuchDevice(kind=kind, name="none at all")
    return next((drive for drive in own if drive.get("name") == "hdc"), own[0])


def replaced(conf: Struct, old: Struct, **changes: Any) -> Struct:
    """Return the configuration with another form of the device, which is found by what it is called now."""
    devices = [{**device, **changes} if same(device, old) else device for device in conf["devices"]]
    return {**conf, "devices": devices}


def without(conf: Struct, old: Struct) -> Struct:
    """Return the configuration without the device."""
    return {**conf, "devices": [device for device in conf["devices"] if not same(device, old)]}


def same(one: Struct, other: Struct) -> bool:
    """Say whether both are forms of one device: what else is said of it may have changed."""
    if one is other or one.get("type") != other.get("type"):
        return one is other
    key = {"disk": "name", "interface": "macAddr"}.get(str(one["type"]), "alias")
    return one.get(key) == other.get(key) if one.get(key) else one == other


def struct(params: Struct, name: str) -> Struct:
    """Return the struct that must be there by this name. Raises MissingParameter, Invalid."""
    found = params.get(name)
    if found is None or found == "":
        raise MissingParameter(name=name)
    if not isinstance(found, dict):
        raise Invalid(what=name, reason="expected a struct")
    return found


def text(params: Struct, name: str) -> str:
    """Return the text that must be there by this name. Raises MissingParameter, Invalid."""
    found = params.get(name)
    if found is None or found == "":
        raise MissingParameter(name=name)
    if not isinstance(found, str):
        raise Invalid(what=name, reason="expected a string")
    return found


def _only(devices: list[Struct], fits: Callable[[Struct], bool], kind: str, name: str) -> Struct:
    found = [device for device in devices if fits(device)]
    if len(found) != 1:
        raise NoSuchDevice(kind=kind, name=f"{name} fits {len(found)} of {len(devices)}")
    return found[0]


def _shown(said: Struct, keys: tuple[str, ...]) -> str:
    return ", ".join(f"{key}={said[key]!s:.100}" for key in keys if said.get(key)) or "it is not named"
