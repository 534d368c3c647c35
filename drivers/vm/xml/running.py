"""What the XML of a running domain says, and the pieces of it that change while it runs.

It promises that libvirt's answer is taken as it comes: what is not there is not learnt, and what is there already stays.
Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from lxml import etree

from drivers.errors import Invalid, Unsupported
from drivers.vm.conf.devices import HostDevice
from drivers.vm.conf.params import Conf
from drivers.vm.conf.view import convert
from drivers.vm.xml.devices import host_address
from drivers.vm.xml.elements import Element, set_all
from drivers.vm.xml.pieces import chain_of

NAMESPACE = "urn:vdsmd:1"
"""Of the metadata that tells our domains from those of others."""

VNC_PASSWORD = 8
"""How much of a password VNC itself looks at, and libvirt takes."""

_LONGEST_TICKET = 2**31
_BIG = 2**31


def is_ours(xml: str) -> bool:
    """Whether the domain with this XML was made by this daemon or an earlier one of its kind."""
    return _parse(xml).find(f"metadata/{{{NAMESPACE}}}vm") is not None


def read_back(xml: str, conf: Conf) -> Conf:
    """Return `conf` with what libvirt decided, from the XML of the running domain: alias and address of each device, and of
    those that nobody asked for, the name of each nic on the host, and where the displays are."""
    unclaimed = list(_devices_of(xml))
    address = _display_address(unclaimed)
    devices = [device | _learnt(device, unclaimed) for device in conf["devices"]]
    first: Conf = next((device for device in devices if device["type"] == "graphics"), {})
    display = {"displayPort": first.get("port", -1), "displaySecurePort": first.get("tlsPort", -1)}
    if address:
        display["displayIp"] = address
    return {**conf, "devices": devices + _unasked(unclaimed), **display}


def io_limits(disk: Element) -> dict[str, Any]:
    """Return the limits that the element of a disk says, as the wire has them."""
    return on_the_wire({limit.tag: int(limit.text or 0) for limit in disk.iterfind("iotune/*")})


def on_the_wire(limits: dict[str, int]) -> dict[str, Any]:
    """Numbers as the wire can carry them: those of more than 31 bits as text."""
    return {name: limit if limit < _BIG else str(limit) for name, limit in limits.items()}


def graphics_with_ticket(xml: str, password: str, seconds: int, action: str, *, now: float, kind: str = "") -> str:
    """Return the first graphics element (of `kind`, if said) of the running domain, with a ticket: a password that is
    valid for `seconds` from `now` (the epoch's clock). With 0 or less its end stays what it was.
    action: what becomes of a SPICE client that is connected: 'disconnect', 'keep' or 'fail' the ticket."""
    if action not in ("disconnect", "keep", "fail"):
        raise Invalid(what="existingConnAction", reason=f"not one of disconnect, keep, fail: {action!s:.40}")
    element = next((e for e in _devices_of(xml).findall("graphics") if kind in ("", e.get("type"))), None)
    if element is None:
        raise Unsupported(what="a ticket", reason=f"the virtual machine has no {kind or 'graphics'} display")
    is_vnc = element.get("type") == "vnc"
    ticket = {"passwd": password[:VNC_PASSWORD] if is_vnc else password}
    if seconds > 0:
        ticket["passwdValidTo"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + min(seconds, _LONGEST_TICKET)))
    if not is_vnc:
        ticket["connected"] = action
    set_all(element, ticket)
    return etree.tostring(element, encoding="unicode")


def _display_address(elements: list[Element]) -> str:
    """Return the one address that the first display listens on, '' when it listens on all."""
    display = next((element for element in elements if element.tag == "graphics"), None)
    listen = None if display is None else display.find("listen")
    address = "" if listen is None else listen.get("address", "")
    return "" if address in ("0.0.0.0", "::") else address


def _unasked(unclaimed: list[Element]) -> list[dict[str, Any]]:
    """Return what libvirt has added of its own. Callers keep that, and ask for it the next time: so each has its address in
    the guest again. (The PCI buses themselves have theirs in any case.)"""
    devices = []
    for element in unclaimed:
        alias, address = element.find("alias"), element.find("address")
        kind = element.get("type", "")
        if element.tag in _ADDED and kind != "pci" and alias is not None and address is not None:
            more = {key: element.get(key) for key in ("index", "model") if element.get(key)}
            named = {"type": element.tag, "device": kind, "alias": alias.get("name"), **more}
            devices.append({**named, "address": {str(name): str(part) for name, part in address.items()}})
    return devices


_ADDED = ("controller", "channel")


def _learnt(device: dict[str, Any], unclaimed: list[Element]) -> dict[str, Any]:
    """What the element of `device` says, which is taken off the unclaimed ones."""
    element = next((element for element in unclaimed if is_of(element, device)), None)
    if element is None:
        return {}
    unclaimed.remove(element)
    alias, address = element.find("alias"), element.find("address")
    learnt: dict[str, Any] = {}
    if alias is not None:
        learnt["alias"] = alias.get("name")
    if address is not None:
        learnt["address"] = dict(address.attrib)
    if device["type"] in _LEARN:
        learnt |= _LEARN[device["type"]](element, device)
    return learnt


def is_of(element: Element, device: dict[str, Any]) -> bool:
    """Whether the element of a domain is that of the device."""
    kind = device["type"]
    if element.tag != _TAGS.get(kind, kind):
        return False
    if kind == "disk":
        return _child(element, "target", "dev") == device.get("name")
    if kind == "interface":
        return (
            _child(element, "mac", "address") == str(device.get("macAddr") or _child(element, "mac", "address")).lower()
        )
    if kind == "console":
        return _child(element, "target", "type") == "virtio"
    if kind == "hostdev":
        return _is_host_device(element, device)
    if kind == "controller" and str(device.get("index", "")) not in ("", element.get("index", "")):
        return False
    return kind not in ("controller", "graphics", "channel") or element.get("type") == device.get("device")


def _is_host_device(element: Element, device: dict[str, Any]) -> bool:
    said = convert(device, HostDevice, "hostdev")
    if said.spec_params.iommu_placeholder or element.get("type") != said.kind:
        return False
    adapter = _child(element, "source/adapter", "name")
    if said.kind == "scsi" and adapter != f"scsi_host{said.device.split('_')[1]}":
        return False
    where = element.find("source/address")
    return where is not None and all(where.get(key) == value for key, value in host_address(said).items())


_TAGS = {"balloon": "memballoon", "redir": "redirdev"}
"""Elements that are not called like the kind of device."""


def _layers(element: Element, device: dict[str, Any]) -> dict[str, Any]:
    """The layers of a disk, the leaf last, as callers know them: a volume's file is called by its id."""
    names = {name: device[name] for name in ("domainID", "imageID") if device.get(name)}
    chain = [{**names, "volumeID": os.path.basename(path), "path": path} for path in chain_of(element)]
    return {"volumeChain": chain} if chain and device.get("device") == "disk" else {}


_LEARN: dict[str, Callable[[Element, dict[str, Any]], dict[str, Any]]] = {
    "disk": _layers,
    "interface": lambda element, _: {
        "name": _child(element, "target", "dev"),
        "macAddr": _child(element, "mac", "address"),
    },
    "graphics": lambda element, _: {
        "port": int(element.get("port", -1)),
        "tlsPort": int(element.get("tlsPort", -1)),
    },
}


def _child(element: Element, tag: str, attribute: str) -> str:
    child = element.find(tag)
    return "" if child is None else child.get(attribute, "")


def _devices_of(xml: str) -> Element:
    found = _parse(xml).find("devices")
    return etree.Element("devices") if found is None else found


def _parse(xml: str) -> Element:
    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))
