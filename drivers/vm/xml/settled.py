"""What has become of a change whose end nobody saw: the domain itself knows.

It promises that what did not happen leaves no trace in the configuration, that what did happen is in it, and that a disk is
where the domain says. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

from typing import Any

from drivers.vm.conf.params import Conf
from drivers.vm.contract import truth
from drivers.vm.xml.elements import Element
from drivers.vm.xml.pieces import attribute, parse, path_of
from drivers.vm.xml.running import io_limits, is_of

Device = dict[str, Any]
Versions = tuple[Device | None, Device | None]
"""A device as it was before, and as it is if the change has happened."""


def settled(xml: str, before: Conf, intended: Conf) -> Conf:
    """Return what holds of the two configurations, from the XML of the running domain."""
    domain = parse(xml)
    unclaimed = list(domain.iterfind("devices/*"))
    devices = [
        _one_of(versions, unclaimed) for versions in _pairs(before.get("devices", []), intended.get("devices", []))
    ]
    conf = {**before, "devices": [device for device in devices if device is not None]}
    for key, read in _READ.items():
        if intended.get(key) != before.get(key):
            now = read(domain, conf)
            # In the form that a caller gave it, if it is one of the two.
            conf[key] = next((form[key] for form in (before, intended) if str(form.get(key)) == str(now)), now)
    if intended.get("balloonTarget") != before.get("balloonTarget"):
        conf["balloonTarget"] = intended["balloonTarget"]
    return conf


def _pairs(before: list[Device], intended: list[Device]) -> list[Versions]:
    later = list(intended)
    pairs: list[Versions] = []
    for device in before:
        match = next((other for other in later if _same(device, other)), None)
        if match is not None:
            later.remove(match)
        pairs.append((device, match))
    return pairs + [(None, device) for device in later]


def _same(one: Device, other: Device) -> bool:
    keys = ("type", *_NAMES.get(str(one.get("type")), ("alias",)))
    return one == other or (all(one.get(key) == other.get(key) for key in keys) and bool(one.get(keys[-1])))


_NAMES = {"disk": ("name",), "interface": ("macAddr",)}
"""What tells devices of a kind apart, where it is not the alias."""


def _one_of(versions: Versions, unclaimed: list[Element]) -> Device | None:
    before, after = versions
    device = before or after
    assert device is not None
    element = next((element for element in unclaimed if is_of(element, device)), None)
    if element is not None:
        unclaimed.remove(element)
    if before == after:
        return before
    if element is None:
        return None
    if before is None or after is None:
        return device
    return _as_it_is(element, before, after)


def _as_it_is(element: Element, before: Device, after: Device) -> Device:
    if element.tag == "disk":
        path = path_of(element)
        device = after if path == after.get("path") else {**before, "path": path}
        return _limited(element, device, before, after)
    if element.tag == "interface":
        has_happened = attribute(element, "source", "bridge") in ("", after.get("network", ""))
        up = attribute(element, "link", "state") != "down"
        return after if has_happened and up is truth(after.get("linkActive", True)) else before
    return after


def _limited(element: Element, device: Device, *forms: Device) -> Device:
    """The disk with the limits that its element says: as one of the forms has them, if one does."""
    now = io_limits(element)
    specs = [form.get("specParams") or {} for form in forms]
    if specs[0] == specs[1]:
        return device
    agreeing = (spec for spec in specs if _set(spec.get("ioTune") or {}) == _set(now))
    spec = next(agreeing, {**specs[0], "ioTune": now})
    if not spec and "specParams" not in forms[0]:
        return {key: value for key, value in device.items() if key != "specParams"}
    return {**device, "specParams": spec}


def _set(limits: Device) -> dict[str, str]:
    """The limits that are any."""
    return {name: str(limit) for name, limit in limits.items() if str(limit) not in ("0", "")}


def _cpus(domain: Element, _conf: Conf) -> str:
    vcpu = domain.find("vcpu")
    return "1" if vcpu is None else vcpu.get("current") or vcpu.text or "1"


def _memory(domain: Element, _conf: Conf) -> int:
    return int(domain.findtext("memory") or 0) >> 10  # libvirt tells it in KiB, whatever it was given in


def _medium(kind: str) -> Any:
    def read(_domain: Element, conf: Conf) -> str:
        drives = (d for d in conf["devices"] if d.get("type") == "disk" and d.get("device") == kind)
        return next((str(drive.get("path", "")) for drive in drives), "")

    return read


_READ = {"smp": _cpus, "memSize": _memory, "cdrom": _medium("cdrom"), "floppy": _medium("floppy")}
"""Parameters of the machine that changes of it change, and what the domain says of them."""
