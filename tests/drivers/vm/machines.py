"""Parameters of virtual machines for tests: each case says what is asked for, and what the domain's XML must then say."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec


class Case(msgspec.Struct, frozen=True):
    name: str
    params: dict[str, Any]
    facts: dict[str, object] = {}
    """XPath: what it finds (text, or how many elements)."""
    site: dict[str, Any] = {}
    """What is special about the host."""
    host: str = ""
    """What the host must have before QEMU's command line can be made: then only the definition is tried."""

    @property
    def vm_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))

    @property
    def whole(self) -> dict[str, Any]:
        return {"vmId": self.vm_id, "vmName": self.name, "memSize": "64", **self.params}


def disk(path: str = "/images/disk.raw", **more: Any) -> dict[str, Any]:
    return {"type": "disk", "device": "disk", "iface": "virtio", "path": path, "format": "raw", **more}


def nic(mac: str = "00:1a:4a:16:01:51", **more: Any) -> dict[str, Any]:
    return {"type": "interface", "device": "bridge", "macAddr": mac, "nicModel": "pv", "network": "ovirtmgmt", **more}


SPICE = {"type": "graphics", "device": "spice", "specParams": {}}
VNC = {"type": "graphics", "device": "vnc", "specParams": {"keyMap": "en-us"}}
QXL = {"type": "video", "device": "qxl", "specParams": {"vram": "65536", "heads": "1"}}

CASES = [
    Case(
        "bare",
        {"memSize": 100},
        {
            "string(/domain/name)": "bare",
            "string(/domain/memory)": "102400",
            "string(/domain/memory/@unit)": "KiB",
            "string(/domain/currentMemory)": "102400",
            "string(/domain/vcpu)": "1",
            "string(/domain/os/type)": "hvm",
            "string(/domain/os/type/@machine)": "pc",
            "count(/domain/features/acpi)": 1,
            "count(/domain/features/hyperv)": 0,
            "count(//graphics)": 0,
            "count(//video)": 0,
            "count(//interface)": 0,
            "string(//disk[@device='cdrom']/target/@dev)": "hdc",
            "count(//disk)": 1,
            "count(//disk/source)": 0,
            "string(//memballoon/@model)": "none",
            "string(//controller[@type='virtio-serial']/@ports)": "16",
            "string(//serial/@type)": "pipe",
            "string(//serial/target/@port)": "0",
            "count(//channel[@type='unix'])": 2,
            "count(//channel[@type='spicevmc'])": 0,
            "string(//input/@type)": "mouse",
            "string(//entry[@name='manufacturer'])": "oVirt",
            "string(//entry[@name='product'])": "Test OS",
            "string(//entry[@name='version'])": "12",
            "string(//entry[@name='serial'])": "the-host",
            "string(/domain/os/smbios/@mode)": "sysinfo",
            "count(/domain/*[starts-with(local-name(), 'on_')])": 0,
        },
    ),
    Case(
        "legacy",
        {
            "display": "qxlnc",
            "spiceMonitors": "2",
            "keyboardLayout": "de",
            "spiceSecureChannels": "smain,sinputs,cursor,nonsense",
            "copyPasteEnable": "false",
            "fileTransferEnable": "false",
            "nicModel": "e1000,pv",
            "macAddr": "00:1a:4a:16:01:51,00:1a:4a:16:01:52",
            "bridge": "ovirtmgmt",
            "drives": [
                {"path": "/images/one", "if": "virtio", "format": "cow", "propagateErrors": "on", "imageID": "image-1"},
                {"path": "/dev/mapper/two", "if": "virtio", "format": "raw", "serial": "S2"},
            ],
            "hda": "/images/hda.img",
            "cdrom": "/images/boot.iso",
            "floppy": "/images/floppy.vfd",
            "boot": "dcn",
            "soundDevice": "ich6",
            "smartcardEnable": "true",
            "tabletEnable": "true",
            "console": "true",
            "timeOffset": "-3600",
            "bootMenuEnable": "true",
            "serial": "machine-serial",
        },
        {
            "string(//disk[source/@file='/images/one']/target/@dev)": "vda",
            "string(//disk[source/@file='/images/one']/driver/@type)": "qcow2",
            "string(//disk[source/@file='/images/one']/driver/@error_policy)": "enospace",
            "string(//disk[source/@file='/images/one']/driver/@io)": "threads",
            "string(//disk[source/@file='/images/one']/serial)": "image-1",
            "string(//disk[source/@dev='/dev/mapper/two']/@type)": "block",
            "string(//disk[source/@dev='/dev/mapper/two']/target/@dev)": "vdb",
            "string(//disk[source/@dev='/dev/mapper/two']/driver/@io)": "native",
            "string(//disk[source/@dev='/dev/mapper/two']/driver/@error_policy)": "stop",
            "string(//disk[source/@dev='/dev/mapper/two']/serial)": "S2",
            "string(//disk[source/@file='/images/hda.img']/target/@dev)": "hda",
            "string(//disk[@device='cdrom']/source/@file)": "/images/boot.iso",
            "string(//disk[@device='cdrom']/target/@dev)": "hdc",
            "count(//disk[@device='cdrom']/readonly)": 1,
            "count(//disk[@device='cdrom']/driver/@cache)": 0,
            "string(//disk[@device='floppy']/target/@dev)": "fda",
            "string(//disk[@device='floppy']/target/@bus)": "fdc",
            "string(//interface[1]/model/@type)": "e1000",
            "string(//interface[2]/model/@type)": "virtio",
            "string(//interface[2]/mac/@address)": "00:1a:4a:16:01:52",
            "string(//interface[2]/source/@bridge)": "ovirtmgmt",
            "string(//interface[2]/link/@state)": "up",
            "string(//graphics/@type)": "spice",
            "string(//graphics/@keymap)": "de",
            "string(//graphics/clipboard/@copypaste)": "no",
            "string(//graphics/filetransfer/@enable)": "no",
            "count(//graphics/channel)": 3,
            "string(//graphics/channel[3]/@name)": "cursor",
            "string(//graphics/channel[3]/@mode)": "secure",
            "count(//video[model/@type='qxl' and model/@vram='32768'])": 2,
            "string(//sound/@model)": "ich6",
            "string(//smartcard/@type)": "spicevmc",
            "string(//input/@type)": "tablet",
            "string(//console/target/@type)": "virtio",
            "count(//channel[@type='spicevmc']/target[@name='com.redhat.spice.0'])": 1,
            "string(/domain/os/boot[1]/@dev)": "cdrom",
            "string(/domain/os/boot[3]/@dev)": "network",
            "string(/domain/os/bootmenu/@enable)": "yes",
            "string(/domain/clock/@adjustment)": "-3600",
            "string(//timer[@name='hpet']/@present)": "no",
            "string(//entry[@name='serial'])": "machine-serial",
        },
        {"spice_tls": True},
        host="a tap device",
    ),
    Case(
        "legacy vnc",
        {"display": "vnc", "displayNetwork": "display", "hda": "/images/a", "hdd": "/images/d", "boot": "c"},
        {
            "string(//graphics/@type)": "vnc",
            "string(//graphics/@autoport)": "yes",
            "string(//graphics/@passwdValidTo)": "1970-01-01T00:00:01",
            "string(//graphics/listen/@type)": "network",
            "string(//graphics/listen/@network)": "vdsm-display",
            "string(//video/model/@type)": "cirrus",
            "string(//disk[source/@file='/images/d']/target/@dev)": "hdd",
            "string(/domain/os/boot/@dev)": "hd",
        },
        host="a network",
    ),
    Case(
        "display network of the host",
        {"display": "vnc", "displayNetwork": "display"},
        {
            "string(//graphics/listen/@type)": "address",
            "string(//graphics/listen/@address)": "192.0.2.7",
            "count(//graphics/listen)": 1,
        },
        {"address_on": {"display": "192.0.2.7"}.get},
    ),
    Case(
        "host devices",
        {
            "devices": [
                {"type": "hostdev", "device": "pci_0000_05_00_1"},
                {"type": "hostdev", "device": "pci_0000_05_00_0", "specParams": {"iommuPlaceholder": "true"}},
                {"type": "hostdev", "device": "usb_1_2_4", "hostAddress": {"bus": 1, "device": "7"}, "bootOrder": "1"},
                {"type": "hostdev", "device": "scsi_3_0_1_2", "address": {"type": "drive", "unit": "5"}},
                {"type": "input", "device": "tablet", "alias": "input0"},
            ]
        },
        {
            "count(//hostdev)": 3,
            "string(//hostdev[@type='pci']/@managed)": "yes",
            "string(//hostdev[@type='pci']/source/address/@bus)": "0x05",
            "string(//hostdev[@type='pci']/source/address/@function)": "0x1",
            "string(//hostdev[@type='usb']/source/address/@bus)": "1",
            "string(//hostdev[@type='usb']/source/address/@device)": "7",
            "string(//hostdev[@type='usb']/boot/@order)": "1",
            "count(//hostdev[@type='usb']/@managed)": 0,
            "string(//hostdev[@type='scsi']/source/adapter/@name)": "scsi_host3",
            "string(//hostdev[@type='scsi']/source/address/@bus)": "0",
            "string(//hostdev[@type='scsi']/source/address/@target)": "1",
            "string(//hostdev[@type='scsi']/source/address/@unit)": "2",
            "string(//hostdev[@type='scsi']/address/@unit)": "5",
            "string(//controller[@type='scsi']/@model)": "virtio-scsi",
            "count(//input)": 1,
        },
        host="devices to give away",
    ),
    Case(
        "cells in any order",
        {
            "smp": "2",
            "guestNumaNodes": [
                {"cpus": "1", "memory": "24", "nodeIndex": 1},
                {"cpus": "0", "memory": "40", "nodeIndex": "0"},
            ],
        },
        {"string(//cell[@id='1']/@memory)": "24576", "string(//cell[@id='0']/@cpus)": "0"},
    ),
    Case(
        "direct kernel",
        {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd", "kernelArgs": "console=ttyS0 a=\"<&'", "boot": "c"},
        {
            "string(/domain/os/kernel)": "/boot/vmlinuz",
            "string(/domain/os/initrd)": "/boot/initrd",
            "string(/domain/os/cmdline)": "console=ttyS0 a=\"<&'",
        },
    ),
    Case(
        "disks",
        {
            "boot": "c",
            "devices": [
                disk("/images/a", bootOrder="1", shared="shared", imageID="an-image"),
                disk("/images/b", iface="scsi", readonly="true", address={"type": "drive", "unit": "3", "bus": "0"}),
                disk("/images/c", iface="ide", index="2", cache="writethrough"),
                disk("/images/d", iface="virtio", index="0"),
                disk("/dev/e", device="lun", iface="scsi", format="raw"),
                disk("/images/f", iface="sata", specParams={"ioTune": {"read_iops_sec": 100, "write_bytes_sec": "5"}}),
                disk("", GUID="36001405a"),
                disk("", UUID="6c61ac4c"),
                {
                    "type": "disk",
                    "device": "cdrom",
                    "iface": "ide",
                    "index": "2",
                    "path": "",
                    "specParams": {"path": ""},
                },
                {"type": "disk", "device": "floppy", "path": "", "readonly": True},
            ],
        },
        {
            "string(//disk[source/@file='/images/a']/target/@dev)": "vdb",
            "string(//disk[source/@file='/images/a']/boot/@order)": "1",
            "count(//disk[source/@file='/images/a']/shareable)": 1,
            "count(/domain/os/boot)": 0,
            "string(//disk[source/@file='/images/b']/target/@dev)": "sda",
            "string(//disk[source/@file='/images/b']/address/@unit)": "3",
            "count(//disk[source/@file='/images/b']/readonly)": 1,
            "string(//disk[source/@file='/images/c']/target/@dev)": "hdc",
            "string(//disk[source/@file='/images/c']/driver/@cache)": "writethrough",
            "string(//disk[source/@file='/images/d']/target/@dev)": "vda",
            "string(//disk[source/@dev='/dev/e']/@device)": "lun",
            "string(//disk[source/@dev='/dev/e']/target/@dev)": "sdb",
            "string(//disk[source/@file='/images/f']/target/@dev)": "sdc",
            "string(//disk[source/@file='/images/f']/iotune/read_iops_sec)": "100",
            "string(//disk[source/@file='/images/f']/iotune/write_bytes_sec)": "5",
            "count(//iotune/*)": 2,
            "string(//disk[source/@dev='/dev/mapper/36001405a']/target/@dev)": "vdc",
            "string(//disk[source/@dev='/dev/disk/by-uuid/6c61ac4c']/target/@dev)": "vdd",
            "string(//disk[@device='cdrom']/target/@dev)": "hda",
            "count(//disk[@device='cdrom']/source)": 0,
            "string(//disk[@device='floppy']/target/@dev)": "fda",
            "string(//controller[@type='scsi']/@model)": "virtio-scsi",
        },
    ),
    Case(
        "network disk",
        {
            "devices": [
                disk(
                    "pool/volume",
                    diskType="network",
                    protocol="rbd",
                    hosts=[{"name": "192.0.2.1", "port": "6789", "transport": "tcp"}],
                    auth={"username": "cinder", "type": "ceph", "uuid": "2a1ddf4c-7d2b-4a2b-a0b5-0d1e8f6d9a51"},
                )
            ]
        },
        {
            "string(//disk/@type)": "network",
            "string(//disk/source/@protocol)": "rbd",
            "string(//disk/source/@name)": "pool/volume",
            "string(//disk/source/host/@port)": "6789",
            "string(//disk/source/auth/secret/@uuid)": "2a1ddf4c-7d2b-4a2b-a0b5-0d1e8f6d9a51",
        },
        host="a secret",
    ),
    Case(
        "nics",
        {
            "devices": [
                nic(
                    bootOrder=1,
                    address={"type": "pci", "domain": "0x0000", "bus": "0x00", "slot": "0x0a", "function": "0x0"},
                ),
                nic("00:1a:4a:16:01:52", network="", nicModel="e1000"),
                nic("00:1a:4a:16:01:53", linkActive="false", nicModel=""),
                nic("00:1a:4a:16:01:54", device="ethernet", network="", tap="tap7"),
                nic("00:1a:4a:16:01:55", device="user", network=""),
                nic(
                    "00:1a:4a:16:01:56",
                    specParams={
                        "inbound": {"average": "1000", "peak": 5000, "burst": 1024},
                        "outbound": {"average": 200},
                    },
                    custom={"queues": "4", "other": "x"},
                ),
                nic("00:1a:4a:16:01:57", filter="vdsm-no-mac-spoofing"),
            ]
        },
        {
            "string(//interface[1]/@type)": "bridge",
            "string(//interface[1]/boot/@order)": "1",
            "string(//interface[1]/address/@slot)": "0x0a",
            "string(//interface[2]/@type)": "user",
            "string(//interface[2]/link/@state)": "down",
            "string(//interface[2]/model/@type)": "e1000",
            "string(//interface[3]/link/@state)": "down",
            "string(//interface[3]/source/@bridge)": "ovirtmgmt",
            "string(//interface[3]/model/@type)": "rtl8139",
            "string(//interface[4]/@type)": "ethernet",
            "string(//interface[4]/target/@dev)": "tap7",
            "string(//interface[4]/target/@managed)": "no",
            "string(//interface[4]/link/@state)": "up",
            "string(//interface[5]/@type)": "user",
            "string(//interface[5]/link/@state)": "up",
            "string(//interface[6]/bandwidth/inbound/@average)": "1000",
            "string(//interface[6]/bandwidth/inbound/@burst)": "1024",
            "count(//interface[6]/bandwidth/outbound/@peak)": 0,
            "string(//interface[6]/driver/@queues)": "4",
            "count(//filterref)": 0,
        },
        {"net_filters": False},
        host="a tap device",
    ),
    Case(
        "filtered nic",
        {"devices": [nic(filter="vdsm-no-mac-spoofing")]},
        {"string(//interface/filterref/@filter)": "vdsm-no-mac-spoofing"},
        host="a tap device",
    ),
    Case(
        "two displays",
        {"devices": [SPICE, VNC, QXL, {**QXL, "specParams": {"vram": 32768, "ram": 65536, "vgamem": 16384}}]},
        {
            "count(//graphics)": 2,
            "string(//graphics[@type='vnc']/@keymap)": "en-us",
            "string(//graphics[@type='spice']/listen/@address)": "0.0.0.0",
            "string(//graphics[@type='spice']/@passwdValidTo)": "1970-01-01T00:00:01",
            "count(//graphics/channel)": 0,
            "string(//video[1]/model/@heads)": "1",
            "string(//video[2]/model/@vgamem)": "16384",
        },
    ),
    Case(
        "no ticket needed",
        {
            "devices": [
                {"type": "graphics", "device": "vnc", "specParams": {"disableTicketing": "true"}},
                {"type": "video", "device": "std", "specParams": {"vram": 16384}},
            ]
        },
        {"count(//graphics/@passwd)": 0, "string(//video/model/@type)": "vga"},
    ),
    Case(
        "odd devices",
        {
            "devices": [
                SPICE,
                {"type": "video", "device": "vmware", "specParams": {}},
                {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}},
                {"type": "watchdog", "device": "watchdog", "specParams": {"model": "IB700", "action": "poweroff"}},
                {
                    "type": "rng",
                    "device": "virtio",
                    "model": "virtio",
                    "specParams": {"source": "random", "bytes": 1234, "period": "20000"},
                },
                {"type": "sound", "device": "hda"},
                {"type": "sound", "device": "ac97"},
                {"type": "controller", "device": "usb", "index": 0, "model": "ich9-ehci1"},
                {
                    "type": "controller",
                    "device": "virtio-serial",
                    "index": "0",
                    "address": {"type": "pci", "slot": "0x09", "bus": "0", "domain": "0", "function": "0"},
                },
                {"type": "controller", "device": "scsi", "index": "0", "model": "lsilogic"},
                {"type": "console", "device": "console", "specParams": {"consoleType": "virtio"}},
                {"type": "redir", "device": "spicevmc"},
                {"type": "channel", "device": "spicevmc", "address": {"type": "virtio-serial", "port": "1"}},
                disk(iface="scsi"),
            ]
        },
        {
            "string(//video/model/@type)": "vmvga",
            "count(//memballoon)": 1,
            "string(//memballoon/@model)": "virtio",
            "string(//watchdog/@model)": "ib700",
            "string(//watchdog/@action)": "poweroff",
            "string(//rng/backend)": "/dev/random",
            "string(//rng/rate/@bytes)": "1234",
            "string(//rng/rate/@period)": "20000",
            "string(//sound[1]/@model)": "ich6",
            "count(//controller[@type='virtio-serial'])": 1,
            "string(//controller[@type='virtio-serial']/address/@slot)": "0x09",
            "count(//controller[@type='scsi'])": 1,
            "string(//redirdev/@bus)": "usb",
            "count(//channel)": 3,
        },
    ),
    Case(
        "consoles",
        {"devices": [{"type": "console", "device": "console", "specParams": {"consoleType": "serial"}}]},
        {"count(//serial)": 1, "count(//console)": 0},
    ),
    Case(
        "console on a socket",
        {"devices": [{"type": "console", "device": "console", "specParams": {"enableSocket": "true"}}]},
        {"string(//console/@type)": "unix", "string(//console/source/@mode)": "bind"},
    ),
    Case(
        "processors",
        {
            "smp": "4",
            "maxVCpus": "16",
            "smpCoresPerSocket": "2",
            "smpThreadsPerCore": 2,
            "cpuType": "Westmere,+aes,-vmx",
            "numaTune": {"mode": "strict", "nodeset": "0"},
            "guestNumaNodes": [
                {"cpus": "0-7", "memory": "32", "nodeIndex": 0},
                {"cpus": "8-15", "memory": 32, "nodeIndex": 1},
            ],
            "maxMemSize": 256,
            "maxMemSlots": 8,
            "numOfIoThreads": 2,
            "acpiEnable": "true",
            "hypervEnable": "true",
            "devices": [disk(specParams={"pinToIoThread": "2"})],
        },
        {
            "string(/domain/vcpu)": "16",
            "string(/domain/vcpu/@current)": "4",
            "string(//topology/@sockets)": "4",
            "string(//topology/@cores)": "2",
            "string(//topology/@threads)": "2",
            "string(/domain/numatune/memory/@nodeset)": "0",
            "string(/domain/cpu/numa/cell[2]/@cpus)": "8-15",
            "string(/domain/cpu/numa/cell[2]/@memory)": "32768",
            "string(/domain/maxMemory/@slots)": "8",
            "string(/domain/iothreads)": "2",
            "string(//disk/driver/@iothread)": "2",
            "count(/domain/cpu/model)": 0,
            "count(/domain/features/hyperv)": 0,
        },
    ),
    Case(
        "tuned processors",
        {"smp": 2, "cpuShares": "512", "cpuPinning": {"0": "0-1", "1": "1"}},
        {
            "string(/domain/cputune/shares)": "512",
            "string(/domain/cputune/vcpupin[@vcpu='0']/@cpuset)": "0-1",
        },
        host="control groups",
    ),
    Case(
        "no acpi",
        {"acpiEnable": "false", "emulatedMachine": "q35", "devices": [{"type": "disk", "device": "cdrom"}]},
        {
            "count(/domain/features/acpi)": 0,
            "string(/domain/os/type/@machine)": "q35",
            "string(//disk/target/@bus)": "sata",
            "string(//disk/target/@dev)": "sdc",
        },
    ),
    Case("a name with <&> and ü", {"custom": {"k": "v"}}, {"string(/domain/name)": "a name with <&> and ü"}),
]
