"""What only root may read of the hardware."""

from __future__ import annotations

from supervdsm.registry import VDSMD, Context, action
from supervdsm.sysfs import read

FACTS = {
    "systemManufacturer": "sys_vendor",
    "systemProductName": "product_name",
    "systemVersion": "product_version",
    "systemSerialNumber": "product_serial",
    "systemUUID": "product_uuid",
    "systemFamily": "product_family",
}
"""The engine's names, and those of the files in which the kernel shows the firmware's tables (SMBIOS)."""


@action("hardware.facts", callers=(VDSMD,))
def facts(context: Context) -> dict[str, str]:
    """Return maker, product, version, serial number, UUID and family of the host: those that its firmware tells."""
    told = {name: read(f"{context.sysfs}/class/dmi/id/{file}") for name, file in FACTS.items()}
    return {name: value for name, value in told.items() if value}
