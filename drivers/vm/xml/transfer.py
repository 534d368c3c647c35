"""The definition of a domain that goes on elsewhere, or later, from a saved memory: with the paths of this host.

It promises that nothing of what the guest itself sees is changed. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from drivers.errors import Invalid
from drivers.vm.contract import AGENT_CHANNELS, channel
from drivers.vm.xml.elements import Element
from drivers.vm.xml.pieces import parse

DEVICE_TAGS = ("disk", "interface", "hostdev", "graphics", "redirdev", "rng", "controller")
"""Elements that the operator's scripts for single devices are run over."""


def relocated(
    xml: str,
    *,
    vm_id: str,
    channels_dir: str,
    console: str,
    disks: Mapping[str, str],
    displays: Mapping[str, str] = {},
) -> str:
    """Return the definition with our console and channels, the disks' data at these paths (by the disks' names), and displays
    that listen on these addresses (by their kinds). Raises Invalid when it is no definition of that machine."""
    try:
        domain = parse(xml)
    except etree.XMLSyntaxError as error:
        raise Invalid(what="the definition of the domain", reason=error) from error
    if (domain.findtext("uuid") or "").lower() != vm_id:
        raise Invalid(what="the definition of the domain", reason=f"it is not that of the virtual machine {vm_id}")
    for tag in ("serial", "console"):
        for element in domain.iterfind(f"devices/{tag}[@type='pipe']"):
            _set(element, "path", console)
    for element in domain.iterfind("devices/channel[@type='unix']"):
        target = element.find("target")
        name = "" if target is None else target.get("name", "")
        if name in AGENT_CHANNELS:
            _set(element, "path", channel(channels_dir, vm_id, name))
    for element in domain.iterfind("devices/disk"):
        _move(element, disks)
    for element in domain.iterfind("devices/graphics"):
        if address := displays.get(element.get("type", "")):
            _listen(element, address)
    return etree.tostring(domain, encoding="unicode")


def devices(xml: str) -> list[str]:
    """Return the elements of the devices that the operator's scripts are run over, one by one."""
    found = parse(xml).find("devices")
    elements = [] if found is None else [element for element in found if element.tag in DEVICE_TAGS]
    return [etree.tostring(element, encoding="unicode") for element in elements]


def _move(disk: Element, disks: Mapping[str, str]) -> None:
    target = disk.find("target")
    path = disks.get("" if target is None else target.get("dev", ""))
    source = disk.find("source")
    if path and source is not None:
        key = {"file": "file", "block": "dev"}.get(disk.get("type", ""))
        if key and source.get(key) != path:
            source.set(key, path)


def _listen(display: Element, address: str) -> None:
    for element in (display, *display.iterfind("listen[@type='address']")):
        name = "listen" if element is display else "address"
        if element.get(name):
            element.set(name, address)


def _set(element: Element, name: str, value: str) -> None:
    source = element.find("source")
    if source is not None:
        source.set(name, value)
