"""Hardware: what the firmware, the distribution and the kernel say this machine is."""

from __future__ import annotations

import uuid

from drivers.errors import HardwareUnknown
from vdsmd.host.files import Files

DMI = "/sys/class/dmi/id"
DMI_KEYS = {
    "systemManufacturer": "sys_vendor",
    "systemProductName": "product_name",
    "systemVersion": "product_version",
    "systemSerialNumber": "product_serial",
    "systemFamily": "product_family",
    "systemUUID": "product_uuid",
}
"""The words of the wire, and the files in which the kernel shows the firmware's tables. Serial number and uuid are root's."""
NO_SERIAL = {"", "none", "to be filled by o.e.m.", "default string", "not specified", "system serial number"}
NO_UUID = {
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
}
ID_FILE = "/etc/vdsm/vdsm.id"
OUR_IDS = uuid.UUID("1d0f4f2c-6a39-4c55-8e70-2f0b6a4bd0f5")
SYSTEMS = {"debian": "Debian", "rhel": "RHEL", "fedora": "Fedora", "ovirt": "oVirt Node", "ovirt-node": "oVirt Node"}
UNKNOWN = "unknown"


def firmware(files: Files) -> dict[str, str]:
    """Return what the firmware says of this machine, as far as we may read it: by the words of the wire."""
    return {key: files.text(f"{DMI}/{name}") for key, name in DMI_KEYS.items()}


def host_id(files: Files, told: dict[str, str]) -> str:
    """Return the uuid by which engines know this host, or '' when there is no way to tell. `told`: by the firmware.

    The operator's word (/etc/vdsm/vdsm.id) comes first, then the firmware's, then one derived from the machine id, which
    is the same for as long as the system stays installed. Firmware that gives the same uuid to every board is not believed.
    """
    written = _uuid(files.text(ID_FILE))
    burnt_in = _uuid(told.get("systemUUID", ""))
    if written:
        return written
    if burnt_in and burnt_in not in NO_UUID:
        return burnt_in
    machine = files.text("/etc/machine-id")
    return str(uuid.uuid5(OUR_IDS, machine)) if machine else ""


def information(files: Files, told: dict[str, str]) -> dict[str, str]:
    """Return the info of getVdsHardwareInfo: the keys this machine has an answer for. `told`: by the firmware.

    Many virtual machines have no firmware tables, and some files are for root only: what is known is answered without
    the rest. Raises HardwareUnknown when nothing at all is known.
    """
    found = {key: told.get(key, "") for key in DMI_KEYS}
    board = files.text("/proc/device-tree/model").rstrip("\0")
    if board and not found["systemProductName"]:
        found["systemProductName"] = board
    found["systemUUID"] = host_id(files, told)
    known = {key: value for key, value in found.items() if value.lower() not in NO_SERIAL}
    if not known:
        raise HardwareUnknown(reason="no firmware tables, no host id, no machine id")
    return known


def operating_system(files: Files) -> dict[str, str]:
    """Return name (one of the names engines know, or 'unknown'), version and release of the distribution."""
    told = files.pairs("/etc/os-release", "=")
    ids = [told.get("VARIANT_ID", ""), told.get("ID", ""), *told.get("ID_LIKE", "").split()]
    name = next((SYSTEMS[each] for each in ids if each in SYSTEMS), UNKNOWN)
    release = told.get("BUILD_ID") or told.get("VERSION_CODENAME", "")
    return {"name": name, "version": told.get("VERSION_ID", ""), "release": release}


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""
