"""The elements of a domain's devices, one function per kind of device.

It promises that what a view says is in the element, or that the caller is told why it cannot be: nothing is dropped
silently but what libvirt decides better itself. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from drivers.errors import NotFound, Unsupported
from drivers.vm.conf import devices as views
from drivers.vm.contract import channel
from drivers.vm.xml.elements import Element, Site, add
from drivers.vm.xml.nics import interface

EXPIRED = "1970-01-01T00:00:01"
"""A password is valid until then, which is: not, until somebody sets a ticket."""

_SPICE_CHANNELS = {"main", "display", "inputs", "cursor", "playback", "record", "smartcard", "usbredir"}
_ADDRESS_PARTS = frozenset(
    (
        "domain",
        "bus",
        "slot",
        "function",
        "multifunction",
        "controller",
        "target",
        "unit",
        "port",
        "reg",
        "iobase",
        "irq",
    )
)


def add_device(parent: Element, device: views.Device, site: Site) -> None:
    """Append the element of `device`, if it is one that has an element of its own."""
    build = _BUILDERS.get(type(device))
    element = None if build is None else build(parent, device, site)
    if element is not None:
        _address(element, device)


def _address(element: Element, device: views.Device) -> None:
    kind = device.address.get("type")
    if kind:
        parts = {key: value for key, value in device.address.items() if key in _ADDRESS_PARTS}
        add(element, "address", None, type=kind, **parts)


def _disk(parent: Element, disk: views.Disk, site: Site) -> Element:
    source = disk.disk_type or ("block" if disk.path.startswith("/dev/") else "file")
    element = add(parent, "disk", type=source, device=disk.device, snapshot="no")
    _disk_driver(element, disk, source, site)
    if source == "network":
        _network_source(element, disk, site)
    elif disk.path:
        add(element, "source", None, **{"dev" if source == "block" else "file": disk.path})
    add(element, "target", dev=disk.name, bus=disk.iface)
    if any(limits := msgspec.structs.asdict(disk.spec_params.io_tune).items()):
        _io_tune(element, dict(limits))
    if disk.serial or disk.image_id:
        add(element, "serial", disk.serial or disk.image_id)
    if disk.readonly or disk.device == "cdrom":
        add(element, "readonly")
    if _says(disk.shared, "true", "shared"):
        add(element, "shareable")
    if disk.boot_order is not None:
        add(element, "boot", order=disk.boot_order)
    return element


def _disk_driver(element: Element, disk: views.Disk, source: str, site: Site) -> None:
    driver = add(element, "driver", name="qemu", type="raw" if disk.format == "raw" else "qcow2")
    if disk.device not in ("disk", "lun"):
        return
    cache = disk.cache or site.drive_cache
    direct = cache in ("none", "directsync")
    driver.set("cache", cache)
    driver.set("error_policy", "enospace" if _says(disk.propagate_errors, "true", "on") else "stop")
    driver.set("io", "native" if source == "block" and direct else "threads")
    if disk.spec_params.pin_to_io_thread:
        driver.set("iothread", str(disk.spec_params.pin_to_io_thread))


def _says(value: str | bool, *words: str) -> bool:
    return value is True or str(value).lower() in words


def _network_source(element: Element, disk: views.Disk, site: Site) -> None:
    source = add(element, "source", protocol=disk.protocol, name=disk.path)
    for host in disk.hosts:
        add(source, "host", name=host.name, port=host.port, transport=host.transport)
    if disk.auth.username:
        if not site.secrets:
            reason = "libvirt keeps secrets only where it is a daemon of its own"
            raise Unsupported(what=f"The secret of disk {disk.name}", reason=reason)
        auth = add(source, "auth", username=disk.auth.username)
        add(auth, "secret", type=disk.auth.type, uuid=disk.auth.secret)


def _io_tune(element: Element, limits: dict[str, int]) -> None:
    set_ones = {name: limit for name, limit in limits.items() if limit}
    if set_ones:
        tune = add(element, "iotune")
        for name, limit in set_ones.items():
            add(tune, name, limit)


def _graphics(parent: Element, graphics: views.Graphics, site: Site) -> None:
    said = graphics.spec_params
    element = add(parent, "graphics", type=graphics.device, autoport="yes", keymap=said.key_map)
    if not said.disable_ticketing:
        element.set("passwd", "*****")
        element.set("passwdValidTo", EXPIRED)
    _listen(element, said.display_network, site)
    if graphics.device == "spice":
        _spice(element, said, site)


def _listen(element: Element, network: str, site: Site) -> None:
    if network and site.address_on is None:
        add(element, "listen", type="network", network=f"vdsm-{network}")
    else:
        address = _address_on(network, site) if network else site.display_address
        add(element, "listen", type="address", address=address)


def _address_on(network: str, site: Site) -> str:
    address = site.address_on(network) if site.address_on else ""
    if not address:
        raise NotFound(kind="address of this host on the display's network", name=network)
    return address


def _spice(element: Element, said: views.GraphicsSpec, site: Site) -> None:
    asked = [name.strip() for name in said.spice_secure_channels.split(",")]
    secure = [name if name in _SPICE_CHANNELS else name.removeprefix("s") for name in asked]
    for name in secure if site.spice_tls else []:
        if name in _SPICE_CHANNELS:
            add(element, "channel", name=name, mode="secure")
    if not said.copy_paste_enable:
        add(element, "clipboard", copypaste="no")
    if not said.file_transfer_enable:
        add(element, "filetransfer", enable="no")


_VIDEO_MODELS = {"std": "vga", "vmware": "vmvga"}


def _video(parent: Element, video: views.Video, _site: Site) -> Element:
    element = add(parent, "video")
    sizes = {key: value or None for key, value in msgspec.structs.asdict(video.spec_params).items()}
    add(element, "model", type=_VIDEO_MODELS.get(video.device, video.device), **sizes)
    return element


def _sound(parent: Element, sound: views.Sound, _site: Site) -> Element:
    return add(parent, "sound", model="ich6" if sound.device == "hda" else sound.device)


def _controller(parent: Element, controller: views.Controller, _site: Site) -> Element:
    ports = 16 if controller.device == "virtio-serial" else None
    # Of the kind that machines get which have none in their list: what goes there stays where it was.
    model = controller.model or ("virtio-scsi" if controller.device == "scsi" else "")
    return add(parent, "controller", type=controller.device, index=controller.index, model=model, ports=ports)


def _balloon(parent: Element, balloon: views.Balloon, _site: Site) -> Element:
    return add(parent, "memballoon", model=balloon.spec_params.model)


def _watchdog(parent: Element, watchdog: views.Watchdog, _site: Site) -> Element:
    said = watchdog.spec_params
    return add(parent, "watchdog", model=said.model.lower(), action=said.action)


def _smartcard(parent: Element, card: views.Smartcard, _site: Site) -> Element:
    mode = card.spec_params.mode
    return add(parent, "smartcard", mode=mode, type=card.spec_params.type if mode == "passthrough" else None)


_RNG_SOURCES = {"random": "/dev/random", "urandom": "/dev/urandom", "hwrng": "/dev/hwrng"}


def _rng(parent: Element, rng: views.Rng, _site: Site) -> Element:
    said = rng.spec_params
    element = add(parent, "rng", model=rng.model)
    if said.bytes:
        add(element, "rate", bytes=said.bytes, period=said.period or None)
    add(element, "backend", _RNG_SOURCES[said.source], model="random")
    return element


def _tpm(parent: Element, tpm: views.Tpm, _site: Site) -> Element:
    element = add(parent, "tpm", model=tpm.spec_params.model)
    backend = add(element, "backend", type=tpm.spec_params.mode)
    add(backend, "device", path=tpm.spec_params.path)
    return element


def _console(parent: Element, console: views.Console, site: Site) -> Element | None:
    said = console.spec_params
    if said.console_type == "serial" and site.console is not None:
        return None  # the guest's first serial port is ours already, and is its console
    element = add(parent, "console", type="unix" if said.enable_socket else "pty")
    if said.enable_socket:
        add(element, "source", mode="bind", path=channel(site.channels_dir, site.vm_id, "console"))
    add(element, "target", type=said.console_type, port=0)
    return element


def _redirection(parent: Element, _device: views.Redirection, _site: Site) -> Element:
    return add(parent, "redirdev", bus="usb", type="spicevmc")


def _memory(parent: Element, memory: views.Memory, _site: Site) -> Element:
    element = add(parent, "memory", model="dimm")
    target = add(element, "target")
    add(target, "size", memory.size << 10, unit="KiB")
    add(target, "node", memory.node)
    return element


def _host_device(parent: Element, device: views.HostDevice, _site: Site) -> Element | None:
    if device.spec_params.iommu_placeholder:
        return None
    element = add(parent, "hostdev", mode="subsystem", type=device.kind, managed=_MANAGED.get(device.kind))
    source = add(element, "source")
    if device.kind == "scsi":
        add(source, "adapter", name=f"scsi_host{device.device.split('_')[1]}")
    add(source, "address", None, **host_address(device))
    if device.boot_order is not None:
        add(element, "boot", order=device.boot_order)
    return element


_MANAGED = {"pci": "yes"}
"""The kinds of the host's devices that libvirt takes away from the host's own drivers."""


def host_address(device: views.HostDevice) -> dict[str, str]:
    """Return where libvirt finds a device of the host."""
    numbers = device.device.split("_")[1:]
    if device.kind == "usb":
        return {"bus": str(device.host_address.bus), "device": str(device.host_address.device)}
    if device.kind == "scsi":
        return dict(zip(("bus", "target", "unit"), numbers[1:], strict=True))
    return {part: f"0x{number}" for part, number in zip(("domain", "bus", "slot", "function"), numbers, strict=True)}


_BUILDERS: dict[type[views.Device], Callable[[Element, Any, Site], Element | None]] = {
    views.Disk: _disk,
    views.Interface: interface,
    views.Graphics: _graphics,
    views.Video: _video,
    views.Sound: _sound,
    views.Controller: _controller,
    views.Balloon: _balloon,
    views.Watchdog: _watchdog,
    views.Smartcard: _smartcard,
    views.Rng: _rng,
    views.Tpm: _tpm,
    views.Console: _console,
    views.Redirection: _redirection,
    views.Memory: _memory,
    views.HostDevice: _host_device,
}
