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
from drivers.vm.conf.params import Conf
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
    """Return `conf` with what libvirt decided, from the XML of the running domain: alias and address of each device,
    the name of each nic on the host, and the ports of the displays."""
    unclaimed = list(_devices_of(xml))
    devices = [device | _learnt(device, unclaimed) for device in conf["devices"]]
    first: Conf = next((device for device in devices if device["type"] == "graphics"), {})
    ports = {"displayPort": first.get("port", -1), "displaySecurePort": first.get("tlsPort", -1)}
    return {**conf, "devices": devices, **ports}


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
    return kind not in ("controller", "graphics") or element.get("type") == device.get("device")


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
