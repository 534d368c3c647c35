"""What became of a change that nobody saw the end of is read from the domain, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.vm.xml.settled import settled

Conf = dict[str, Any]

DISK = {"type": "disk", "device": "disk", "name": "vda", "path": "/a", "format": "raw"}
CD = {"type": "disk", "device": "cdrom", "name": "hdc", "path": ""}
NIC = {"type": "interface", "device": "bridge", "macAddr": "00:1A:4A:16:01:51", "network": "br0", "linkActive": True}
DIMM = {"type": "memory", "device": "memory", "size": 128, "alias": "dimm0"}
SOUND = {"type": "sound", "device": "ich6"}

VDA = "<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
HDC = "<disk type='file' device='cdrom'>{}<target dev='hdc'/></disk>"
NET = "<interface type='bridge'><mac address='00:1a:4a:16:01:51'/><source bridge='{}'/><link state='{}'/></interface>"
MODULE = "<memory model='dimm'/>"


def domain(*devices: str, cpus: int = 1, memory: int = 64) -> str:
    head = f"<memory unit='KiB'>{memory << 10}</memory><vcpu current='{cpus}'>4</vcpu>"
    return f"<domain>{head}<devices>{''.join(devices)}</devices></domain>"


def at(path: str) -> str:
    return VDA.replace("/a", path)


def conf(*devices: Conf, **more: Any) -> Conf:
    return {"vmId": "v", "smp": "1", "memSize": 64, "devices": list(devices), **more}


TUNED = {**DISK, "specParams": {"ioTune": {"read_iops_sec": 9}}}
LIMITED = (
    "<disk type='file'><source file='/a'/><target dev='vda'/><iotune><read_iops_sec>{}</read_iops_sec></iotune></disk>"
)
DOWN = {**NIC, "linkActive": False}
MOVED = {**DISK, "path": "/b", "format": "cow"}
INSERTED = {**CD, "path": "/cd"}

CASES = {
    "a disk was plugged in": (conf(CD), conf(CD, DISK), domain(HDC, VDA), conf(CD, DISK)),
    "a disk was not plugged in": (conf(CD), conf(CD, DISK), domain(HDC), conf(CD)),
    "a disk was unplugged": (conf(CD, DISK), conf(CD), domain(HDC), conf(CD)),
    "a disk was not unplugged": (conf(CD, DISK), conf(CD), domain(HDC, VDA), conf(CD, DISK)),
    "a nic was plugged in": (conf(), conf(NIC), domain(NET.format("br0", "up")), conf(NIC)),
    "a nic was unplugged": (conf(NIC), conf(), domain(), conf()),
    "a link went down": (conf(NIC), conf(DOWN), domain(NET.format("br0", "down")), conf(DOWN)),
    "a link stayed up": (conf(NIC), conf(DOWN), domain(NET.format("br0", "up")), conf(NIC)),
    "a nic changed its network": (
        conf(NIC), conf({**NIC, "network": "br1"}), domain(NET.format("br1", "up")), conf({**NIC, "network": "br1"}),
    ),
    "a nic kept its network": (conf(NIC), conf({**NIC, "network": "br1"}), domain(NET.format("br0", "up")), conf(NIC)),
    "a snapshot was taken": (conf(DISK), conf(MOVED), domain(at("/b")), conf(MOVED)),
    "a snapshot was not taken": (conf(DISK), conf(MOVED), domain(at("/a")), conf(DISK)),
    "a disk went elsewhere": (conf(DISK), conf(MOVED), domain(at("/c")), conf({**DISK, "path": "/c"})),
    "a CD was inserted": (
        conf(CD), conf(INSERTED, cdrom="/cd"), domain(HDC.format("<source file='/cd'/>")), conf(INSERTED, cdrom="/cd"),
    ),
    "a CD was not inserted": (conf(CD), conf(INSERTED, cdrom="/cd"), domain(HDC.format("")), conf(CD, cdrom="")),
    "a CD was ejected first": (
        conf(INSERTED, cdrom="/cd"), conf({**CD, "path": "/d"}, cdrom="/d"), domain(HDC.format("")), conf(CD, cdrom=""),
    ),
    "memory was plugged in": (
        conf(), conf(DIMM, memSize=192), domain(MODULE, memory=192), conf(DIMM, memSize=192),
    ),
    "a second module was not": (
        conf(DIMM, memSize=192), conf(DIMM, {**DIMM, "alias": ""}, memSize=320), domain(MODULE, memory=192),
        conf(DIMM, memSize=192),
    ),
    "processors came": (conf(), conf(smp="3"), domain(cpus=3), conf(smp="3")),
    "processors did not come": (conf(), conf(smp="3"), domain(cpus=1), conf(smp="1")),
    "limits were set": (conf(DISK), conf(TUNED), domain(LIMITED.format(9)), conf(TUNED)),
    "limits were not set": (conf(DISK), conf(TUNED), domain(VDA), conf(DISK)),
    "other limits are there": (
        conf(DISK), conf(TUNED), domain(LIMITED.format(5)),
        conf({**DISK, "specParams": {"ioTune": {"read_iops_sec": 5}}}),
    ),
    "the balloon was asked": (conf(), conf(balloonTarget="9"), domain(), conf(balloonTarget="9")),
    "what has no element of its own stays": (conf(SOUND), conf(SOUND, DISK), domain(), conf(SOUND)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_domain_knows(case: tuple[Conf, Conf, str, Conf]) -> None:
    before, intended, xml, after = case
    copies = [dict(before), dict(intended)]
    assert settled(xml, before, intended) == after
    assert [before, intended] == copies
