"""Host devices: what this host has that a guest could be given, under the names that libvirt gives them.

It promises that the parent of every device is a device of the same list, up to the one that stands for the whole machine.
What is read is the kernel's own (sysfs), so that it is the same under every hypervisor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from vdsmd.host.files import Files

WHOLE = "computer"
PCI, USB, SCSI, NET = "/sys/bus/pci/devices", "/sys/bus/usb/devices", "/sys/bus/scsi/devices", "/sys/class/net"
NAMES = ("/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids")
"""Where distributions keep the names of PCI devices and their makers."""

Params = dict[str, Any]


class Device(msgspec.Struct, frozen=True):
    """`place`: its directory, all links followed."""

    name: str
    place: str
    params: Params


def devices(files: Files, capabilities: Iterable[str] = ()) -> dict[str, dict[str, Params]]:
    """Return the deviceList of hostdevListByCaps: all devices, or those with one of these capabilities (pci, usb_device, scsi,
    scsi_host, scsi_target, net, system)."""
    found = [device for look in (_pci, _usb, _scsi, _net) for device in look(files)]
    names = {device.place: device.name for device in found}
    told: dict[str, Params] = {WHOLE: {"capability": "system"}}
    for device in found:
        told[device.name] = {**device.params, "parent": _parent(device.place, names)}
    wanted = set(capabilities)
    return {name: {"params": p} for name, p in sorted(told.items()) if not wanted or p["capability"] in wanted}


def _parent(place: str, names: dict[str, str]) -> str:
    while place := place.rpartition("/")[0]:
        if place in names:
            return names[place]
    return WHOLE


def _pci(files: Files) -> list[Device]:
    addresses = files.names(PCI)
    ids = {
        address: tuple(files.text(f"{PCI}/{address}/{what}") for what in ("vendor", "device")) for address in addresses
    }
    makers, products = _names_of(files, ids.values())
    found = []
    for address in addresses:
        where = f"{PCI}/{address}"
        vendor, product = ids[address]
        params: Params = {
            "capability": "pci",
            "vendor_id": vendor,
            "product_id": product,
            "vendor": makers.get(vendor, ""),
            "product": products.get((vendor, product), ""),
        }
        if group := files.target(f"{where}/iommu_group"):
            params["iommu_group"] = int(group)
        if files.exists(f"{where}/sriov_totalvfs"):
            params["totalvfs"] = files.number(f"{where}/sriov_totalvfs")
        if physical := files.target(f"{where}/physfn"):
            params["physfn"] = _pci_name(physical)
        found.append(Device(_pci_name(address), files.real(where), params))
    return found


def _pci_name(address: str) -> str:
    return f"pci_{_plain(address)}"


def _usb(files: Files) -> list[Device]:
    found = []
    for name in files.names(USB):
        where = f"{USB}/{name}"
        if not files.exists(f"{where}/idVendor"):
            continue  # one of the functions of a device
        params = {
            "capability": "usb_device",
            "vendor_id": f"0x{files.text(f'{where}/idVendor')}",
            "product_id": f"0x{files.text(f'{where}/idProduct')}",
            "vendor": files.text(f"{where}/manufacturer"),
            "product": files.text(f"{where}/product"),
        }
        found.append(Device(f"usb_{_plain(name)}", files.real(where), params))
    return found


_SCSI_KINDS = {
    r"host\d+": "scsi_host",
    r"target\d+:\d+:\d+": "scsi_target",
    r"\d+:\d+:\d+:\d+": "scsi",
}


def _scsi(files: Files) -> list[Device]:
    found = []
    for name in files.names(SCSI):
        where = f"{SCSI}/{name}"
        for capability in (kind for pattern, kind in _SCSI_KINDS.items() if re.fullmatch(pattern, name)):
            params = {"capability": capability}
            if capability == "scsi":
                params |= {"vendor": files.text(f"{where}/vendor"), "product": files.text(f"{where}/model")}
            found.append(Device(f"scsi_{_plain(name)}", files.real(where), params))
    return found


def _net(files: Files) -> list[Device]:
    found = []
    for name in files.names(NET):
        if files.exists(f"{NET}/{name}/device"):
            mac = files.text(f"{NET}/{name}/address")
            params = {"capability": "net", "interface": name}
            found.append(Device(f"net_{_plain(name)}_{_plain(mac)}", files.real(f"{NET}/{name}"), params))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


def _names_of(files: Files, ids: Iterable[tuple[str, ...]]) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Return the names of makers and of products, by the numbers as sysfs shows them ('0x8086')."""
    wanted = set(ids)
    vendors = {vendor for vendor, _ in wanted}
    makers: dict[str, str] = {}
    products: dict[tuple[str, str], str] = {}
    vendor = ""
    for line in files.lines(next(filter(files.exists, NAMES), NAMES[0])):
        number, _, text = line.partition("  ")
        if re.fullmatch(r"[0-9a-f]{4}", number):
            vendor = f"0x{number}"
            if vendor in vendors:
                makers[vendor] = text.strip()
        elif line.startswith("C "):
            break  # classes follow
        elif vendor in makers and line.startswith("\t") and (vendor, f"0x{number[1:]}") in wanted:
            products[vendor, f"0x{number[1:]}"] = text.strip()
    return makers, products
