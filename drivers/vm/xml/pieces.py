"""Pieces of a running domain's XML: found, read, and made anew for a change.

It promises elements that libvirt takes for the device that is meant. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

import copy
from typing import Any

from lxml import etree

from drivers.errors import Invalid, Unsupported
from drivers.vm.conf import devices as views
from drivers.vm.xml.devices import add_device
from drivers.vm.xml.elements import Element, Site, add, set_all

Struct = dict[str, Any]

_PATH = {"file": "file", "block": "dev"}
"""Where a source of this type names its path."""


def parse(xml: str) -> Element:
    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))


def text(element: Element) -> str:
    return etree.tostring(element, encoding="unicode", with_tail=False)


def device_xml(
    device: Struct,
    *,
    vm_id: str,
    virt_type: str,
    drive_cache: str,
    net_filters: bool,
    net_limits: bool = True,
    taps: bool = False,
    secrets: bool = True,
) -> str:
    """Return the element of a device struct. Raises Invalid, MissingParameter or Unsupported."""
    site = Site(
        vm_id=vm_id,
        virt_type=virt_type,
        channels_dir="",
        drive_cache=drive_cache,
        display_address="",
        spice_tls=False,
        net_filters=net_filters,
        net_limits=net_limits,
        taps=taps,
        secrets=secrets,
        console=None,
    )
    parent = etree.Element("devices")
    add_device(parent, views.view(device, str(device.get("type"))), site)
    if not len(parent):
        raise Unsupported(what=str(device.get("type")), reason="such a device has no element of its own")
    return text(parent[0])


def element_of(xml: str, device: Struct) -> Element | None:
    """Return the element of a device that is plugged in, or None."""
    from_alias = device.get("alias")
    for element in parse(xml).iterfind("devices/*"):
        if device["type"] == "disk":
            found = element.tag == "disk" and attribute(element, "target", "dev") == device.get("name")
        elif device["type"] == "interface" and device.get("macAddr"):
            mac = str(device["macAddr"]).lower()
            found = element.tag == "interface" and attribute(element, "mac", "address") == mac
        else:
            found = bool(from_alias) and attribute(element, "alias", "name") == from_alias
        if found:
            return element
    return None


def attribute(element: Element, tag: str, name: str) -> str:
    child = element.find(tag)
    return "" if child is None else child.get(name, "")


def disk_of(xml: str, name: str) -> Element:
    """Return the element of the disk `name`. Raises Invalid."""
    found = element_of(xml, {"type": "disk", "name": name})
    if found is None:
        raise Invalid(what="disk", reason=f"the domain has no disk {name}")
    return found


def path_of(disk: Element) -> str:
    """Return the path of a disk's present medium, '' when there is none."""
    return _source_path(disk, disk.get("type", "file"))


def chain_of(disk: Element) -> list[str]:
    """Return the paths of a disk's layers, its leaf last. Empty for a disk that is no file and no block device."""
    chain: list[str] = []
    layer, kind = disk, disk.get("type", "file")
    while path := _source_path(layer, kind):
        chain.insert(0, path)
        below = layer.find("backingStore")
        if below is None or len(below) == 0:
            break
        layer, kind = below, below.get("type", "file")
    return chain


def is_ready(disk: Element) -> bool:
    """Say whether the mirror of a disk holds all that the disk does, so that it can take its place."""
    return attribute(disk, "mirror", "ready") == "yes"


def with_medium(disk: Element, path: str) -> str:
    """Return the element of a drive for removable media with another medium in it, or '' for none."""
    changed = _bare(disk, "source", "backingStore", "mirror")
    changed.set("type", kind_of(path))
    if path:
        source = etree.Element("source")
        set_all(source, {_PATH[kind_of(path)]: path})
        changed.insert(0, source)
    return text(changed)


def with_link(
    interface: Element, *, active: bool | None, network: str | None, limits: views.InterfaceSpec | None
) -> str:
    """Return the element of a nic with another link state, bridge or limits on its traffic; None leaves what is."""
    changed = _bare(interface)
    if active is not None:
        link = changed.find("link")
        (add(changed, "link") if link is None else link).set("state", "up" if active else "down")
    if network is not None and network != attribute(changed, "source", "bridge"):
        source = changed.find("source")
        if source is None or changed.get("type") != "bridge":
            reason = f"it was not plugged into a bridge when it was made ({changed.get('type')})"
            raise Unsupported(what="another network for this nic", reason=reason)
        set_all(source, {"bridge": network})
    if limits is not None:
        _limit(changed, limits)
    return text(changed)


def mirror_disk(path: str, form: str, kind: str = "") -> str:
    """Return the description of the copy that a disk is mirrored to."""
    kind = kind if kind in _PATH else kind_of(path)
    disk = etree.Element("disk", type=kind, device="disk")
    set_all(add(disk, "source"), {_PATH[kind]: path})
    add(disk, "driver", name="qemu", type=driver_format(form))
    return text(disk)


def snapshot_xml(layers: dict[str, str], others: list[str], memory: str) -> str:
    """Return the description of a snapshot. layers: the path of the new leaf of each disk, by the disk's name.
    others: the names of disks that are left alone. memory: where the memory goes, '' when it is not kept."""
    snapshot = etree.Element("domainsnapshot")
    disks = add(snapshot, "disks")
    for name, path in layers.items():
        kind = kind_of(path)
        disk = add(disks, "disk", name=name, snapshot="external", type=kind)
        add(disk, "driver", type="qcow2")
        set_all(add(disk, "source"), {_PATH[kind]: path})
    for name in others:
        add(disks, "disk", name=name, snapshot="no")
    if memory:
        set_all(add(snapshot, "memory", snapshot="external"), {"file": memory})
    else:
        add(snapshot, "memory", snapshot="no")
    return text(snapshot)


def kind_of(path: str) -> str:
    return "block" if path.startswith("/dev/") else "file"


def driver_format(form: str) -> str:
    return "raw" if form == "raw" else "qcow2"


def _limit(interface: Element, said: views.InterfaceSpec) -> None:
    for old in interface.findall("bandwidth"):
        interface.remove(old)
    ways = {"inbound": said.inbound, "outbound": said.outbound}
    limited = {way: limit for way, limit in ways.items() if limit.average}
    bandwidth = add(interface, "bandwidth")
    for way, limit in limited.items():
        add(bandwidth, way, average=limit.average, peak=limit.peak or None, burst=limit.burst or None)


def _source_path(layer: Element, kind: str) -> str:
    return attribute(layer, "source", _PATH[kind]) if kind in _PATH else ""


def _bare(element: Element, *without: str) -> Element:
    """Return a copy that lacks some children, and what libvirt only tells and does not take."""
    bare = copy.deepcopy(element)
    for child in list(bare):
        if child.tag in without:
            bare.remove(child)
    for source in bare.iterfind("source"):
        source.attrib.pop("index", "")
    return bare
