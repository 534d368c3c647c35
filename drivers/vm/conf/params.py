"""From the parameters of a caller to the configuration of a virtual machine.

`normalise` promises a configuration that is complete (every default filled in, legacy parameters turned into devices,
every disk named), that can be stored and sent as it is, and that keeps what the caller said in the caller's own form.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import msgspec

from drivers.errors import Invalid, MissingParameter, Unsupported
from drivers.vm.conf.devices import Disk, HostDevice, Interface, view
from drivers.vm.conf.disks import place
from drivers.vm.conf.legacy import display_of, legacy_devices
from drivers.vm.conf.view import Natural, Positive, View, convert
from drivers.vm.made import payload

Conf = dict[str, Any]

DEEPEST = 20
"""How many structs and lists may lie in one another. Real parameters need six."""

_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_NOT_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
# Compiled at first use (and kept by re): compiling takes longer than importing this module.

_OURS = frozenset(
    (
        "status",
        "statusTime",
        "pid",
        "displayPort",
        "displaySecurePort",
        "exitCode",
        "exitMessage",
        "exitReason",
        "pauseCode",
    )
)
"""What only we say of a machine. A caller may have got it from us, with the configuration of an earlier run."""


class UselessParameter(MissingParameter):
    """It is there, and as good as missing: callers are told so by the same code."""

    message = "Missing required parameter: {name} ({reason})"


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's configuration says about parameters that a caller leaves out."""

    nic_model: str = "rtl8139,pv"
    bridge: str = "engine"


class NumaTune(View, frozen=True, kw_only=True):
    mode: str = ""
    nodeset: str = ""


class NumaNode(View, frozen=True, kw_only=True):
    cpus: str = ""
    memory: Natural = 0
    node_index: Natural | None = None


class Handling(View, frozen=True, kw_only=True):
    """What of a configuration is looked at when the machine is started or shut down."""

    acpi_enable: bool = True
    launch_paused: bool = False


class Machine(Handling, frozen=True, kw_only=True):
    """What a configuration says about the machine itself: a typed view of it, like those of its devices.
    Sizes are in MiB."""

    vm_id: str
    vm_name: Annotated[str, msgspec.Meta(pattern=r"^[^/\n]*$")] = ""
    vm_type: Annotated[str, msgspec.Meta(pattern="^kvm$")] = "kvm"
    mem_size: Positive
    mem_guaranteed_size: Natural = 0
    max_mem_size: Natural = 0
    max_mem_slots: Natural = 16
    smp: Positive = 1
    max_vcpus: Natural = 0
    smp_cores_per_socket: Positive = 1
    smp_threads_per_core: Positive = 1
    num_of_io_threads: Natural = 0
    cpu_type: str = ""
    cpu_shares: Natural = 0
    cpu_pinning: dict[str, str] = {}
    numa_tune: NumaTune = NumaTune()
    guest_numa_nodes: list[NumaNode] = []
    emulated_machine: str = ""
    boot: Annotated[str, msgspec.Meta(pattern="^[acdn]*$")] = ""
    boot_menu_enable: bool = False
    kernel: str = ""
    initrd: str = ""
    kernel_args: str = ""
    kvm_enable: bool = True
    hyperv_enable: bool = False
    tablet_enable: bool = False
    time_offset: int = 0
    serial: str = ""
    nice: int = 0
    custom: dict[str, Any] = {}
    client_ip: str = ""
    devices: list[dict[str, Any]] = []

    @property
    def vcpus(self) -> int:
        return max(self.smp, self.max_vcpus)

    @property
    def sockets(self) -> int:
        """How many sockets the processors fill. Raises Invalid when they fill no whole number of them."""
        sockets, rest = divmod(self.vcpus, self.smp_cores_per_socket * self.smp_threads_per_core)
        if rest:
            raise Invalid(what="smp", reason=f"{self.vcpus} processors do not fill sockets of the size asked for")
        return sockets


def normalise(params: dict[str, Any], defaults: Defaults = Defaults()) -> Conf:  # noqa: B008 (it is frozen)
    """Return the configuration that `params` of the verb `create` stand for; `params` itself is left alone.
    Raises Invalid, MissingParameter or Unsupported, with the path of the parameter."""
    answers = payload.sysprep(params.get("sysprepInf", ""))
    given: Conf = _plain({key: value for key, value in params.items() if key != "sysprepInf"}, "", DEEPEST)
    _check_presence(given)
    machine = convert(given, Machine)
    _ = machine.sockets
    said = {key: value for key, value in given.items() if value != "" and key not in _OURS}
    conf = _defaults(machine, defaults) | said
    conf |= {"vmId": machine.vm_id.lower(), "memSize": machine.mem_size}
    conf["devices"] = [*given.get("devices", []), *answers, *legacy_devices(conf, bridge=defaults.bridge)]
    _settle_devices(conf["devices"], machine, str(conf["nicModel"]).split(",")[0])
    conf.setdefault("display", display_of(conf["devices"]))
    return conf


def new_device(conf: Conf, said: dict[str, Any], kind: str, *, nic_model: str) -> dict[str, Any]:
    """Return the struct of a device of the kind that a machine with this configuration is to get: complete, as `normalise`
    makes it. Raises Invalid, MissingParameter or Unsupported."""
    given = _plain({"type": kind, **said}, kind, DEEPEST)
    device = {key: value for key, value in given.items() if value != "" and key not in ("alias", "address", "name")}
    looked_at = view(device, kind)
    if device["type"] != kind:
        raise Invalid(what=f"{kind}.type", reason=f"a device of the kind {kind} is expected")
    if isinstance(looked_at, Disk):
        taken = {str(other["name"]) for other in conf["devices"] if other.get("type") == "disk" and other.get("name")}
        place([(kind, device, looked_at)], str(conf.get("emulatedMachine", "")), taken)
        if looked_at.spec_params.vm_payload or looked_at.shared == "transient":
            raise Unsupported(what=kind, reason="what is made for a machine is made at its start")
    if isinstance(looked_at, Interface):
        _check_nic(looked_at, kind)
        device.setdefault("nicModel", nic_model)
        mac = looked_at.mac_addr.lower()
        if mac and any(str(other.get("macAddr", "")).lower() == mac for other in conf["devices"]):
            raise Invalid(what=f"{kind}.macAddr", reason="the virtual machine has a nic with this address already")
    return device


def _check_nic(nic: Interface, where: str) -> None:
    if nic.port_mirroring and not (nic.network and nic.device in ("", "bridge")):
        raise Unsupported(what=f"{where}.portMirroring", reason="a nic outside of all networks cannot watch any")


def machine_of(conf: Conf) -> Machine:
    """The typed view of a configuration."""
    return convert(conf, Machine)


def handling_of(conf: Conf) -> Handling:
    """The same of what matters for starting and shutting down: also for a machine of which we know hardly more than its id."""
    return convert(conf, Handling)


def _plain(value: Any, where: str, depth: int) -> Any:
    """A copy of `value`, made of nothing but what the wire and the state can carry."""
    if isinstance(value, str):
        if re.search(_NOT_XML, value):
            raise Invalid(what=where, reason="holds characters that XML cannot carry")
        return str(value)  # not a subclass
    if isinstance(value, (list, dict)) and not depth:
        raise Invalid(what=where, reason="structs and lists are nested too deeply")
    if isinstance(value, list):
        return [_plain(item, f"{where}[{number}]", depth - 1) for number, item in enumerate(value)]
    if isinstance(value, bytes) and where.rpartition(".")[0].endswith("vmPayload.file"):
        return payload.encoded(value)  # as its other callers have it
    if isinstance(value, dict):
        return {
            _key(key, where): _plain(item, f"{where}.{key!s:.40}".lstrip("."), depth - 1) for key, item in value.items()
        }
    return _number(value, where)


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or re.search(_NOT_XML, key):
        raise Invalid(what=where or "parameters", reason="a key is no text that XML can carry")
    return key


def _number(value: object, where: str) -> object:
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value if abs(value) < 2**31 else str(value)
    raise Invalid(what=where, reason=f"a value of this kind cannot be kept: {type(value).__name__}")


def _check_presence(conf: Conf) -> None:
    for name in ("vmId", "memSize"):
        if conf.get(name, "") == "":
            raise MissingParameter(name=name)
    if not isinstance(conf["vmId"], str) or not re.fullmatch(_UUID, conf["vmId"]):
        raise UselessParameter(name="vmId", reason="it is no UUID")
    if str(conf["memSize"]) == "0":
        raise UselessParameter(name="memSize", reason="it is 0")


def _defaults(machine: Machine, defaults: Defaults) -> Conf:
    return {
        "vmName": machine.vm_id.lower(),
        "vmType": "kvm",
        "kvmEnable": "true",
        "acpiEnable": "true",
        "transparentHugePages": "false",
        "smp": 1,
        "nice": 0,
        "memGuaranteedSize": 0,
        "timeOffset": "0",
        "emulatedMachine": "pc",
        "nicModel": defaults.nic_model,
        "clientIp": "",
        "custom": {},
        "displayIp": "0",
        "displayPort": -1,
        "displaySecurePort": -1,
        "pid": 0,
    }


def _settle_devices(devices: list[dict[str, Any]], machine: Machine, nic_model: str) -> None:
    """Check every device, give disks their place and nics their model: `devices` is written to."""
    looked_at = [(f"devices[{n}]", struct, view(struct, f"devices[{n}]")) for n, struct in enumerate(devices)]
    disks = [(where, struct, disk) for where, struct, disk in looked_at if isinstance(disk, Disk)]
    place(disks, machine.emulated_machine)
    for where, struct, device in looked_at:
        if isinstance(device, Interface):
            _check_nic(device, where)
            struct["nicModel"] = device.nic_model or nic_model
    orders = [device.boot_order for _, _, device in looked_at if isinstance(device, (Disk, Interface, HostDevice))]
    if twice := [order for order in orders if order is not None and orders.count(order) > 1]:
        raise Invalid(what="devices", reason=f"bootOrder {twice[0]} is given twice")
