"""The devices of a virtual machine, as typed views of the structs that callers send. See `drivers.vm.conf.view`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from drivers.errors import MissingParameter, Unsupported
from drivers.vm.conf.view import Natural, Positive, View, convert

Mac = Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$|^$")]
Word = Annotated[str, msgspec.Meta(pattern=r"^[\w.:-]*$")]


class Device(View, frozen=True, kw_only=True):
    type: str
    device: str = ""
    alias: str = ""
    address: dict[str, str | int] = {}


class IoTune(View, frozen=True, kw_only=True):
    total_bytes_sec: Natural = 0
    read_bytes_sec: Natural = 0
    write_bytes_sec: Natural = 0
    total_iops_sec: Natural = 0
    read_iops_sec: Natural = 0
    write_iops_sec: Natural = 0


class DiskSpec(View, frozen=True, kw_only=True):
    io_tune: IoTune = IoTune()
    pin_to_io_thread: Natural = 0
    vm_payload: dict[str, Any] = {}


class DiskHost(View, frozen=True, kw_only=True):
    name: str = ""
    port: str | int = ""
    transport: str = ""


class DiskAuth(View, frozen=True, kw_only=True):
    username: str = ""
    type: str = ""
    secret: str = msgspec.field(default="", name="uuid")


class Disk(Device, frozen=True, kw_only=True):
    device: Literal["disk", "lun", "cdrom", "floppy"] = "disk"
    iface: Literal["", "ide", "scsi", "virtio", "fdc", "sata", "usb"] = ""
    path: str = ""
    format: Literal["raw", "cow", "qcow2"] = "raw"
    cache: Literal["", "none", "writeback", "writethrough", "directsync", "unsafe"] = ""
    readonly: bool = False
    shared: str | bool = False
    propagate_errors: str | bool = False
    boot_order: Positive | None = None
    index: Natural | None = None
    name: str = ""
    serial: str = ""
    image_id: str = ""
    volume_id: str = ""
    guid: Word = ""
    uuid: Word = ""
    disk_type: Literal["", "file", "block", "network"] = ""
    protocol: str = ""
    hosts: list[DiskHost] = []
    auth: DiskAuth = DiskAuth()
    spec_params: DiskSpec = DiskSpec()


class Bandwidth(View, frozen=True, kw_only=True):
    average: Natural = 0
    peak: Natural = 0
    burst: Natural = 0


NO_SPOOFING = "vdsm-no-mac-spoofing"
"""The one filter that engines ask for: a guest sends with its own address only."""


class InterfaceSpec(View, frozen=True, kw_only=True):
    inbound: Bandwidth = Bandwidth()
    outbound: Bandwidth = Bandwidth()


class InterfaceCustom(View, frozen=True, kw_only=True):
    queues: Positive | None = None


class Interface(Device, frozen=True, kw_only=True):
    """`device` says how it reaches the world: 'bridge' through the bridge `network` (not plugged in when that is empty),
    'ethernet' through the existing tap device `tap`, 'user' through QEMU's own user-mode network. `name`: what is its end on
    the host called, which nobody but us says."""

    device: Literal["", "bridge", "ethernet", "user"] = "bridge"
    name: str = ""
    nic_model: str = ""
    mac_addr: Mac = ""
    network: str = ""
    tap: str = ""
    filter: str = ""
    port_mirroring: list[str] = []
    link_active: bool = True
    boot_order: Positive | None = None
    spec_params: InterfaceSpec = InterfaceSpec()
    custom: InterfaceCustom = InterfaceCustom()


class GraphicsSpec(View, frozen=True, kw_only=True):
    key_map: str = ""
    disable_ticketing: bool = False
    display_network: str = ""
    spice_secure_channels: str = ""
    copy_paste_enable: bool = True
    file_transfer_enable: bool = True


class Graphics(Device, frozen=True, kw_only=True):
    device: Literal["spice", "vnc"]
    spec_params: GraphicsSpec = GraphicsSpec()


class VideoSpec(View, frozen=True, kw_only=True):
    vram: Natural = 0
    ram: Natural = 0
    vgamem: Natural = 0
    heads: Natural = 0


class Video(Device, frozen=True, kw_only=True):
    device: str
    spec_params: VideoSpec = VideoSpec()


class Sound(Device, frozen=True, kw_only=True):
    device: str


class Controller(Device, frozen=True, kw_only=True):
    device: str
    index: Natural | None = None
    model: str = ""


class BalloonSpec(View, frozen=True, kw_only=True):
    model: Literal["none", "virtio"] = "virtio"


class Balloon(Device, frozen=True, kw_only=True):
    spec_params: BalloonSpec = BalloonSpec()


class WatchdogSpec(View, frozen=True, kw_only=True):
    model: str = "i6300esb"
    action: str = "none"


class Watchdog(Device, frozen=True, kw_only=True):
    spec_params: WatchdogSpec = WatchdogSpec()


class SmartcardSpec(View, frozen=True, kw_only=True):
    mode: Literal["passthrough", "host"] = "passthrough"
    type: Literal["spicevmc"] = "spicevmc"


class Smartcard(Device, frozen=True, kw_only=True):
    spec_params: SmartcardSpec = SmartcardSpec()


class RngSpec(View, frozen=True, kw_only=True):
    source: Literal["random", "hwrng", "urandom"] = "random"
    bytes: Natural = 0
    period: Natural = 0


class Rng(Device, frozen=True, kw_only=True):
    model: Literal["virtio"] = "virtio"
    spec_params: RngSpec = RngSpec()


class TpmSpec(View, frozen=True, kw_only=True):
    model: str = "tpm-tis"
    mode: Literal["passthrough"] = "passthrough"
    path: str = "/dev/tpm0"


class Tpm(Device, frozen=True, kw_only=True):
    spec_params: TpmSpec = TpmSpec()


class ConsoleSpec(View, frozen=True, kw_only=True):
    console_type: Literal["virtio", "serial"] = "virtio"
    enable_socket: bool = False


class Console(Device, frozen=True, kw_only=True):
    spec_params: ConsoleSpec = ConsoleSpec()


class Redirection(Device, frozen=True, kw_only=True):
    """A USB port that a SPICE client may lend a device to."""


class Memory(Device, frozen=True, kw_only=True):
    """A memory module. `size` in MiB, `node`: the guest's NUMA node that it belongs to."""

    device: str = "memory"
    size: Positive
    node: Natural = 0


class UsbAddress(View, frozen=True, kw_only=True):
    """Where on the host a USB device is plugged in: `bus`, and the number that it got there."""

    bus: Natural = 0
    device: Natural = 0


class HostDeviceSpec(View, frozen=True, kw_only=True):
    iommu_placeholder: bool = False


_HOST_DEVICES = r"^(pci_[0-9a-f]{4}(_[0-9a-f]{2}){2}_[0-7]|usb(_[0-9]{1,3}){2,8}|scsi(_[0-9]{1,9}){4})$"


class HostDevice(Device, frozen=True, kw_only=True):
    """A device of the host, by libvirt's name for it: pci_0000_05_00_0, usb_1_2 or scsi_2_0_0_0. `host_address`: that of a USB
    device, which nobody but us says. A placeholder only belongs to the IOMMU group of another: the guest does not get it."""

    device: Annotated[str, msgspec.Meta(pattern=_HOST_DEVICES)]
    boot_order: Positive | None = None
    host_address: UsbAddress = UsbAddress()
    spec_params: HostDeviceSpec = HostDeviceSpec()

    @property
    def kind(self) -> str:
        """pci, usb or scsi."""
        return self.device.partition("_")[0]


class Channel(Device, frozen=True, kw_only=True):
    """Listed for completeness: which channels a guest has is not the caller's to say."""


class Input(Device, frozen=True, kw_only=True):
    """Listed for completeness: which pointer a guest has, the parameter tabletEnable says."""


KINDS: dict[str, type[Device]] = {
    "disk": Disk,
    "interface": Interface,
    "graphics": Graphics,
    "video": Video,
    "sound": Sound,
    "controller": Controller,
    "balloon": Balloon,
    "watchdog": Watchdog,
    "smartcard": Smartcard,
    "rng": Rng,
    "tpm": Tpm,
    "console": Console,
    "redir": Redirection,
    "memory": Memory,
    "hostdev": HostDevice,
    "channel": Channel,
    "input": Input,
}


def view(device: dict[str, Any], where: str) -> Device:
    """Return the typed view of a device struct. Raises Invalid or Unsupported, naming the field below `where`."""
    kind = device.get("type")
    if not kind:
        raise MissingParameter(name=f"{where}.type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Unsupported(what=f"{where}.type", reason=f"no such kind of device: {kind!s:.40}")
    return convert(device, KINDS[kind], where)


def views(conf: dict[str, Any]) -> list[Device]:
    """The views of all devices of a VM, in their order."""
    return [view(device, f"devices[{number}]") for number, device in enumerate(conf.get("devices", []))]
