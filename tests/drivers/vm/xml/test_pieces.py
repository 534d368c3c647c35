"""Pieces of a domain's XML say what is meant, and keep what else was said."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from drivers.errors import Invalid, Unsupported
from drivers.vm.conf.devices import Bandwidth, InterfaceSpec
from drivers.vm.xml import pieces

DOMAIN = """<domain><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/leaf' index='3'/>
  <backingStore type='file' index='2'><format type='qcow2'/><source file='/mid'/>
    <backingStore type='block' index='1'><format type='raw'/><source dev='/dev/base'/><backingStore/></backingStore>
  </backingStore>{mirror}<target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='pool/image'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><source file='/old.iso' index='4'/><backingStore/>
  <target dev='hdc' bus='ide'/><readonly/></disk>
<interface type='bridge'><mac address='00:1a:4a:16:01:51'/><source bridge='br0'/><alias name='net0'/></interface>
<interface type='user'><mac address='00:1a:4a:16:01:52'/><link state='up'/><alias name='net1'/></interface>
</devices></domain>"""
XML = DOMAIN.format(mirror="")
READY = DOMAIN.format(mirror="<mirror type='file' job='copy' ready='yes'><source file='/x'/></mirror>")


def find(text: str, path: str) -> Any:
    return etree.fromstring(text).xpath(path)


def interface(alias: str) -> Any:
    return pieces.element_of(XML, {"type": "interface", "alias": alias})


@pytest.mark.parametrize(
    ("device", "tag"),
    [
        ({"type": "disk", "name": "vda"}, "disk"),
        ({"type": "disk", "name": "vdz"}, None),
        ({"type": "interface", "macAddr": "00:1A:4A:16:01:51"}, "interface"),
        ({"type": "interface", "alias": "net1"}, "interface"),
        ({"type": "interface", "macAddr": "00:1a:4a:16:01:99", "alias": "net1"}, None),
        ({"type": "sound"}, None),
    ],
)
def test_the_element_of_a_device(device: dict[str, Any], tag: str | None) -> None:
    found = pieces.element_of(XML, device)
    assert (None if found is None else found.tag) == tag


def test_the_layers_of_a_disk() -> None:
    assert pieces.chain_of(pieces.disk_of(XML, "vda")) == ["/dev/base", "/mid", "/leaf"]
    assert pieces.chain_of(pieces.disk_of(XML, "vdb")) == []
    assert pieces.path_of(pieces.disk_of(XML, "hdc")) == "/old.iso"
    with pytest.raises(Invalid):
        pieces.disk_of(XML, "sda")


def test_a_mirror_that_is_ready() -> None:
    assert not pieces.is_ready(pieces.disk_of(XML, "vda"))
    assert pieces.is_ready(pieces.disk_of(READY, "vda"))


@pytest.mark.parametrize(
    ("path", "source"), [("/new.iso", "source/@file"), ("/dev/sr0", "source/@dev"), ("", "string(source)")]
)
def test_another_medium(path: str, source: str) -> None:
    text = pieces.with_medium(pieces.disk_of(XML, "hdc"), path)
    assert find(text, source) in ([path], "")
    assert (find(text, "count(source)"), find(text, "count(readonly)")) == (bool(path), 1)
    assert find(text, "string(target/@dev)") == "hdc"
    assert pieces.path_of(pieces.disk_of(XML, "hdc")) == "/old.iso"


def test_what_xml_cannot_carry() -> None:
    with pytest.raises(Invalid):
        pieces.with_medium(pieces.disk_of(XML, "hdc"), "/a\0b")


def test_a_nic_with_another_link() -> None:
    text = pieces.with_link(interface("net0"), active=False, network="br1", limits=None)
    assert find(text, "string(link/@state)") == "down"
    assert find(text, "string(source/@bridge)") == "br1"
    limits = InterfaceSpec(inbound=Bandwidth(average=5, peak=7))
    text = pieces.with_link(interface("net1"), active=None, network=None, limits=limits)
    assert find(text, "string(link/@state)") == "up"
    assert find(text, "string(bandwidth/inbound/@average)") == "5"
    assert find(text, "count(bandwidth/outbound)") == 0


def test_a_nic_that_has_no_bridge_gets_none() -> None:
    with pytest.raises(Unsupported):
        pieces.with_link(interface("net1"), active=True, network="br0", limits=None)


def test_a_snapshot() -> None:
    text = pieces.snapshot_xml({"vda": "/new", "vdb": "/dev/new"}, ["hdc"], "/memory")
    assert find(text, "disks/disk[@name='vda']/source/@file") == ["/new"]
    assert find(text, "disks/disk[@name='vdb']/source/@dev") == ["/dev/new"]
    assert find(text, "disks/disk[@snapshot='no']/@name") == ["hdc"]
    assert find(text, "memory/@file") == ["/memory"]
    assert find(pieces.snapshot_xml({"vda": "/new"}, [], ""), "memory/@snapshot") == ["no"]


def test_a_mirror() -> None:
    assert find(pieces.mirror_disk("/t", "cow"), "driver/@type") == ["qcow2"]
    assert find(pieces.mirror_disk("/t", "raw"), "source/@file") == ["/t"]
    assert find(pieces.mirror_disk("/t", "raw", "block"), "source/@dev") == ["/t"]


@pytest.mark.parametrize(
    ("device", "path"),
    [
        ({"type": "disk", "path": "/a", "name": "vda", "iface": "virtio"}, "source/@file"),
        ({"type": "interface", "device": "user", "nicModel": "pv"}, "model/@type"),
        ({"type": "memory", "size": "128", "node": 1}, "target/size"),
    ],
)
def test_a_device_of_its_own(device: dict[str, Any], path: str) -> None:
    text = pieces.device_xml(device, vm_id="v", virt_type="qemu", drive_cache="none", net_filters=False)
    assert find(text, path)


def test_a_device_that_is_none() -> None:
    with pytest.raises(Unsupported):
        pieces.device_xml({"type": "channel"}, vm_id="v", virt_type="qemu", drive_cache="none", net_filters=False)
