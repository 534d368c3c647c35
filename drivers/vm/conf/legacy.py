"""Legacy parameters: how callers described devices before there was a list of them.

It promises one direction only: each kind of device has one function here that turns parameters into device structs, and
nothing after it needs to know that those parameters exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from drivers.errors import Invalid, MissingParameter
from drivers.vm.conf.view import Positive, View, convert
from drivers.vm.contract import truth

Struct = dict[str, Any]


class Legacy(View, frozen=True, kw_only=True):
    display: Literal["", "vnc", "qxl", "qxlnc", "spice"] = ""
    display_network: str = ""
    spice_secure_channels: str = ""
    spice_monitors: Positive = 1
    keyboard_layout: str = ""
    copy_paste_enable: bool | None = None
    file_transfer_enable: bool | None = None
    nic_model: str = ""
    mac_addr: str = ""
    bridge: str = ""
    drives: list[Struct] = []
    hda: str = ""
    hdb: str = ""
    hdc: str = ""
    hdd: str = ""
    cdrom: str = ""
    floppy: str = ""
    boot: str = ""
    kernel: str = ""
    sound_device: str = ""
    smartcard_enable: bool = False
    console: str | int | bool = False
    devices: list[Struct] | None = None


def legacy_devices(conf: Struct, *, bridge: str) -> list[Struct]:
    """The devices that the legacy parameters in `conf` stand for, of the kinds that its list of devices does not cover.
    A nic whose bridge is not said goes to `bridge`."""
    legacy = convert(conf, Legacy)
    covered = {str(device.get("type")) for device in legacy.devices or []}
    made: list[Struct] = []
    for kind, make in _MAKERS.items():
        if kind not in covered:
            made += ({"type": kind, **device} for device in make(legacy, bridge))
    return made


def display_of(devices: Collection[Struct]) -> str:
    """The legacy word for the first graphics device, empty when there is none."""
    kinds = [device.get("device") for device in devices if device.get("type") == "graphics"]
    return "" if not kinds else "vnc" if kinds[0] == "vnc" else "qxl"


def _disks(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    old_form = legacy.devices is None
    if old_form and legacy.boot == "c" and not (legacy.hda or legacy.drives or legacy.kernel):
        raise MissingParameter(name="hda")
    for drive in legacy.drives:
        rest = {key: value for key, value in drive.items() if key not in ("if", "boot", "type")}
        yield {"device": "disk", "iface": drive.get("if", "ide"), **rest}
    for index, path in enumerate((legacy.hda, legacy.hdb, legacy.hdc, legacy.hdd)):
        if path:
            yield {"device": "disk", "iface": "ide", "index": index, "path": path}
    if legacy.floppy:
        yield {"device": "floppy", "iface": "fdc", "path": legacy.floppy, "readonly": "true"}
    if legacy.cdrom or old_form:
        yield {"device": "cdrom", "path": legacy.cdrom, "readonly": "true"}


def _interfaces(legacy: Legacy, bridge: str) -> Iterator[Struct]:
    macs = [mac.strip() for mac in legacy.mac_addr.split(",")] if legacy.mac_addr else []
    models = legacy.nic_model.split(",")
    bridges = (legacy.bridge or bridge).split(",")
    if len(macs) < len(bridges) and macs:
        raise Invalid(what="bridge", reason="more bridges than MAC addresses")
    for number, mac in enumerate(macs):
        yield {
            "device": "bridge",
            "macAddr": mac,
            "nicModel": models[min(number, len(models) - 1)].strip(),
            "network": bridges[min(number, len(bridges) - 1)].strip(),
        }


def _graphics(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    if legacy.display:
        said = {
            "keyMap": legacy.keyboard_layout,
            "displayNetwork": legacy.display_network,
            "spiceSecureChannels": legacy.spice_secure_channels,
            "copyPasteEnable": legacy.copy_paste_enable,
            "fileTransferEnable": legacy.file_transfer_enable,
        }
        params = {key: value for key, value in said.items() if value not in ("", None)}
        yield {"device": "vnc" if legacy.display == "vnc" else "spice", "specParams": params}


def _video(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    display = legacy.display or display_of(legacy.devices or [])
    if display == "vnc":
        yield {"device": "cirrus", "specParams": {}}
    elif display:
        vram = 65536 if legacy.spice_monitors == 1 else 32768
        for _ in range(min(legacy.spice_monitors, 16)):
            yield {"device": "qxl", "specParams": {"vram": vram}}


def _sound(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    if legacy.sound_device:
        yield {"device": legacy.sound_device}


def _smartcard(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    if legacy.smartcard_enable:
        yield {"device": "smartcard", "specParams": {"mode": "passthrough", "type": "spicevmc"}}


def _console(legacy: Legacy, _bridge: str) -> Iterator[Struct]:
    if truth(legacy.console):
        yield {"device": "console", "specParams": {"consoleType": "virtio"}}


_MAKERS: dict[str, Callable[[Legacy, str], Iterator[Struct]]] = {
    "disk": _disks,
    "interface": _interfaces,
    "graphics": _graphics,
    "video": _video,
    "sound": _sound,
    "smartcard": _smartcard,
    "console": _console,
}
