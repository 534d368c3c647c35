"""The domain of a virtual machine in libvirt's XML.

It promises XML that libvirt accepts for every configuration that `normalise` returns, or an error that says what in it
cannot be. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lxml import etree

from drivers.errors import Failed
from drivers.vm.conf import devices as views
from drivers.vm.conf.params import Conf, Machine, machine_of
from drivers.vm.contract import AGENT_CHANNELS, channel
from drivers.vm.xml.devices import add_device
from drivers.vm.xml.elements import Element, Site, add
from drivers.vm.xml.running import NAMESPACE

TUNE_NAMESPACE = "http://ovirt.org/vm/tune/1.0"

Amend = Callable[[dict[str, Any], str], str]

_BOOT_DEVICES = {"a": "fd", "c": "hd", "d": "cdrom", "n": "network"}


def domain_xml(
    conf: Conf,
    *,
    virt_type: str,
    channels_dir: str,
    console: str | None = None,
    host_uuid: str = "",
    os_name: str = "",
    os_version: str = "",
    release: str = "",
    arch: str = "x86_64",
    drive_cache: str = "none",
    display_address: str = "0.0.0.0",
    spice_tls: bool = False,
    net_filters: bool = True,
    net_limits: bool = True,
    taps: bool = False,
    secrets: bool = True,
    address_on: Callable[[str], str] | None = None,
    amend: Amend | None = None,
) -> str:
    """Return the domain's XML. Raises DriverError when the configuration cannot be meant.

    virt_type: 'kvm', 'qemu' (emulation), or 'test' for libvirt's mock.
    channels_dir: where the sockets of the guest agents are made. With a VM's id and a channel's name a path there must
        still fit into a socket's address (107 bytes): 47 bytes are left for the folder.
    console: the guest's first serial port goes to the two FIFOs <console>.in and <console>.out.
    host_uuid, os_name, os_version: told to the guest in its SMBIOS tables.
    spice_tls: libvirt has a certificate for SPICE; without one no channel can be asked to be secure.
    net_filters, net_limits: libvirt has the network filters, and may limit the traffic, that nics ask for; what it has
    not is left out with a warning.
    taps: nics are plugged into taps that are there already, each called as the `name` of its device says.
    secrets: libvirt keeps secrets, and so opens disks that ask for one.
    address_on: returns the host's address on a network, '' for none. For where libvirt knows no networks, and a display
        that is for one network only must be told an address to listen on.
    amend: is told of each device that a caller described, and of its element, and returns the element to have instead.
    """
    machine = machine_of(conf)
    devices = views.views(conf)
    site = Site(
        vm_id=machine.vm_id,
        virt_type=virt_type,
        channels_dir=channels_dir,
        drive_cache=drive_cache,
        display_address=display_address,
        spice_tls=spice_tls,
        net_filters=net_filters,
        net_limits=net_limits,
        taps=taps,
        secrets=secrets,
        address_on=address_on,
        console=console,
    )
    domain = etree.Element("domain", type=virt_type)
    add(domain, "name", machine.vm_name or machine.vm_id)
    add(domain, "uuid", machine.vm_id)
    _metadata(domain, machine, release)
    _memory(domain, machine)
    _processors(domain, machine)
    _sysinfo(domain, machine, host_uuid=host_uuid, os_name=os_name, os_version=os_version)
    _boot(domain, machine, devices, arch="" if virt_type == "test" else arch)
    _features(domain, machine, virt_type)
    _cpu(domain, machine, virt_type)
    _clock(domain, machine, virt_type)
    _devices(domain, machine, devices, site, conf["devices"], amend)
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def _metadata(domain: Element, machine: Machine, release: str) -> None:
    metadata = add(domain, "metadata")
    ours = etree.SubElement(metadata, f"{{{NAMESPACE}}}vm", nsmap={"vdsmd": NAMESPACE})
    add(ours, f"{{{NAMESPACE}}}vmId", machine.vm_id)
    add(ours, f"{{{NAMESPACE}}}release", release)
    etree.SubElement(metadata, f"{{{TUNE_NAMESPACE}}}qos", nsmap={"ovirt": TUNE_NAMESPACE})


def _memory(domain: Element, machine: Machine) -> None:
    if machine.max_mem_size > machine.mem_size and machine.guest_numa_nodes:
        # Memory can be plugged in later, which libvirt allows only where there are nodes to plug it into.
        add(domain, "maxMemory", machine.max_mem_size << 10, slots=machine.max_mem_slots, unit="KiB")
    add(domain, "memory", machine.mem_size << 10, unit="KiB")
    add(domain, "currentMemory", machine.mem_size << 10, unit="KiB")


def _processors(domain: Element, machine: Machine) -> None:
    add(domain, "vcpu", machine.vcpus, current=machine.smp)
    if machine.num_of_io_threads:
        add(domain, "iothreads", machine.num_of_io_threads)
    if machine.cpu_shares or machine.cpu_pinning:
        tune = add(domain, "cputune")
        if machine.cpu_shares:
            add(tune, "shares", machine.cpu_shares)
        for vcpu, cpus in machine.cpu_pinning.items():
            add(tune, "vcpupin", vcpu=vcpu, cpuset=cpus)
    if machine.numa_tune.nodeset:
        tune = add(domain, "numatune")
        add(tune, "memory", mode=machine.numa_tune.mode or "strict", nodeset=machine.numa_tune.nodeset)


def _sysinfo(domain: Element, machine: Machine, *, host_uuid: str, os_name: str, os_version: str) -> None:
    entries = {
        "manufacturer": "oVirt",
        "product": os_name,
        "version": os_version,
        "serial": machine.serial or host_uuid,
        "uuid": machine.vm_id,
    }
    system = add(add(domain, "sysinfo", type="smbios"), "system")
    for name, value in entries.items():
        if value:
            add(system, "entry", value, name=name)


def _boot(domain: Element, machine: Machine, devices: list[views.Device], *, arch: str) -> None:
    element = add(domain, "os")
    add(element, "type", "hvm", arch=arch, machine=machine.emulated_machine if arch else None)
    for tag, value in (("kernel", machine.kernel), ("initrd", machine.initrd), ("cmdline", machine.kernel_args)):
        if value:
            add(element, tag, value)
    # libvirt has the order either here or in the devices, not in both.
    if not any(getattr(device, "boot_order", None) for device in devices):
        for letter in machine.boot:
            add(element, "boot", dev=_BOOT_DEVICES[letter])
    if machine.boot_menu_enable:
        add(element, "bootmenu", enable="yes")
    add(element, "smbios", mode="sysinfo")


def _features(domain: Element, machine: Machine, virt_type: str) -> None:
    features = add(domain, "features")
    if machine.acpi_enable:
        add(features, "acpi")
    if machine.hyperv_enable and virt_type == "kvm":
        add(add(features, "hyperv"), "relaxed", state="on")


def _cpu(domain: Element, machine: Machine, virt_type: str) -> None:
    cpu = add(domain, "cpu")
    if virt_type == "kvm":
        _cpu_model(cpu, machine.cpu_type or "qemu64")
    sockets = machine.sockets
    cores, threads = machine.smp_cores_per_socket, machine.smp_threads_per_core
    add(cpu, "topology", sockets=sockets, cores=cores, threads=threads)
    if machine.guest_numa_nodes:
        numa = add(cpu, "numa")
        for number, node in enumerate(machine.guest_numa_nodes):
            number = number if node.node_index is None else node.node_index
            add(numa, "cell", id=number, cpus=node.cpus, memory=node.memory << 10, unit="KiB")


def _cpu_model(cpu: Element, asked: str) -> None:
    """A model of the host's, or a named one with features to add (+) and to take away (-). Only with KVM: emulation
    runs what it can run, whatever the name."""
    model, *features = [word.strip() for word in asked.split(",")]
    if model in ("hostPassthrough", "hostModel"):
        cpu.set("mode", {"hostPassthrough": "host-passthrough", "hostModel": "host-model"}[model])
    else:
        cpu.set("match", "exact")
        add(cpu, "model", model)
    for feature in features:
        policy = "disable" if feature.startswith("-") else "require"
        add(cpu, "feature", policy=policy, name=feature.lstrip("+-"))


def _clock(domain: Element, machine: Machine, virt_type: str) -> None:
    hyperv = machine.hyperv_enable and virt_type == "kvm"
    clock = add(domain, "clock", offset="variable", adjustment=machine.time_offset)
    if hyperv:
        add(clock, "timer", name="hypervclock", present="yes")
    add(clock, "timer", name="rtc", tickpolicy="catchup", track="guest" if hyperv else None)
    add(clock, "timer", name="pit", tickpolicy="delay")
    add(clock, "timer", name="hpet", present="no")


def _devices(
    domain: Element,
    machine: Machine,
    devices: list[views.Device],
    site: Site,
    structs: list[dict[str, Any]],
    amend: Amend | None,
) -> None:
    parent = add(domain, "devices")
    if site.console is not None:
        serial = add(parent, "serial", type="pipe")
        add(serial, "source", path=site.console)
        add(serial, "target", port=0)
    for device, struct in zip(devices, structs, strict=True):
        before = len(parent)
        add_device(parent, device, site)
        if amend is not None and len(parent) > before:
            _amended(parent, struct, amend)
    for device in _implied(devices):
        add_device(parent, device, site)
    for name in AGENT_CHANNELS:
        element = add(parent, "channel", type="unix")
        add(element, "source", mode="bind", path=channel(site.channels_dir, site.vm_id, name))
        add(element, "target", type="virtio", name=name)
    if any(isinstance(device, views.Graphics) and device.device == "spice" for device in devices):
        add(add(parent, "channel", type="spicevmc"), "target", type="virtio", name="com.redhat.spice.0")
    pointer = ("tablet", "usb") if machine.tablet_enable else ("mouse", "ps2")
    add(parent, "input", type=pointer[0], bus=pointer[1])


def _amended(parent: Element, device: dict[str, Any], amend: Amend) -> None:
    """Have the last element, which is that of the device, looked at and perhaps replaced."""
    before = etree.tostring(parent[-1], encoding="unicode")
    after = amend(device, before)
    if after != before:
        try:
            parent[-1] = etree.fromstring(after, etree.XMLParser(resolve_entities=False, no_network=True))
        except etree.XMLSyntaxError as error:
            raise Failed(action="reading what a hook made of a device", reason=error) from error


def _is_scsi(device: views.Device) -> bool:
    """Say whether the guest finds the device on a SCSI bus."""
    if isinstance(device, views.HostDevice):
        return device.kind == "scsi"
    return isinstance(device, views.Disk) and device.iface == "scsi"


def _implied(devices: list[views.Device]) -> list[views.Device]:
    """Devices that every machine has although nobody lists them."""
    controllers = {device.device for device in devices if isinstance(device, views.Controller)}
    implied: list[views.Device] = []
    if "virtio-serial" not in controllers:
        implied.append(views.Controller(type="controller", device="virtio-serial", index=0))
    if "scsi" not in controllers and any(_is_scsi(device) for device in devices):
        implied.append(views.Controller(type="controller", device="scsi", index=0, model="virtio-scsi"))
    if not any(isinstance(device, views.Balloon) for device in devices):
        # Said in so many words: libvirt would add one of its own.
        implied.append(views.Balloon(type="balloon", spec_params=views.BalloonSpec(model="none")))
    return implied
