"""The devices of a virtual machine, as typed views of the structs that callers send.

A device stays the caller's own struct, with keys that we may not know; whoever wants to know what it says takes a view.
It promises that a view never invents: what cannot be meant is refused with the path of the field.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from drivers.errors import Invalid, MissingParameter, Unsupported
from drivers.vm.contract import truth

T = TypeVar("T")

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Mac = Annotated[str, msgspec.Meta(pattern="^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$|^$")]
Word = Annotated[str, msgspec.Meta(pattern=r"^[\w.:-]*$")]

_WIRE_NAMES = {"image_id": "imageID", "volume_id": "volumeID", "guid": "GUID", "uuid": "UUID", "max_vcpus": "maxVCpus"}
_KEPT = {f"{limit}_{unit}_sec" for limit in ("total", "read", "write") for unit in ("bytes", "iops")}


def wire_name(name: str) -> str:
    """How a field is called on the wire: camel case, but for a few."""
    first, *rest = name.split("_")
    return name if name in _KEPT else _WIRE_NAMES.get(name) or first + "".join(word.title() for word in rest)


class View(msgspec.Struct, frozen=True, kw_only=True, rename=wire_name):
    """A typed look at a struct of the wire. Keys that have no field here are not looked at."""


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


class HostDevice(Device, frozen=True, kw_only=True):
    """A PCI device of the host, by libvirt's name for it: pci_0000_05_00_0."""

    device: Annotated[str, msgspec.Meta(pattern=r"^pci(_[0-9a-f]{4})(_[0-9a-f]{2}){2}_[0-7]$")]
    boot_order: Positive | None = None


class Channel(Device, frozen=True, kw_only=True):
    """Listed for completeness: which channels a guest has is not the caller's to say."""


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


def convert(value: object, kind: type[T], where: str = "") -> T:
    """Return `value` as `kind`. Numbers may come as text, truth values as text of which only 'true' says yes, and empty text
    is as good as absent."""
    try:
        return msgspec.convert(_read(value, kind), kind, strict=False)
    except msgspec.ValidationError as error:
        reason, at, path = str(error).rpartition(" - at `$")
        reason, path = (reason, path.rstrip("`")) if at else (str(error), "")
        raise Invalid(what=f"{where}{path}".lstrip(".") or "parameters", reason=reason) from None


def _read(value: object, kind: Any) -> object:
    if isinstance(value, dict):
        kinds = _fields(kind) if isinstance(kind, type) and issubclass(kind, View) else {}
        return {key: _read(item, kinds.get(key)) for key, item in value.items() if item != ""}
    if isinstance(value, list):
        return [_read(item, next(iter(get_args(kind)), None)) for item in value]
    return truth(value) if isinstance(value, str) and kind in (bool, bool | None) else value


@cache
def _fields(kind: type[View]) -> dict[str, Any]:
    """The types of a view's fields, by their names on the wire."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
