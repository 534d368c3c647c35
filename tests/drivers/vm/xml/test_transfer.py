"""The definition of a domain that goes on elsewhere."""

from __future__ import annotations

import pytest
from lxml import etree

from drivers.errors import Invalid
from drivers.vm.xml.transfer import devices, relocated

VM = "11111111-1111-4111-8111-111111111111"
XML = f"""<domain type='qemu'><name>a</name><uuid>{VM}</uuid><devices>
<disk type='file' device='disk'><source file='/old/disk'/><target dev='vda'/></disk>
<disk type='block' device='disk'><source dev='/dev/old'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><target dev='hdc'/></disk>
<interface type='bridge'><source bridge='b'/></interface>
<serial type='pipe'><source path='/old/console'/><target port='0'/></serial>
<console type='pipe'><source path='/old/console'/></console>
<channel type='unix'><source mode='bind' path='/old/a'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='unix'><source mode='bind' path='/old/b'/><target type='virtio' name='somebody.elses'/></channel>
<graphics type='vnc' listen='192.0.2.1'><listen type='address' address='192.0.2.1'/></graphics>
<graphics type='spice' listen='0.0.0.0'><listen type='address' address='0.0.0.0'/></graphics>
</devices></domain>"""


def test_only_paths_of_the_host_are_changed() -> None:
    moved = relocated(
        XML,
        vm_id=VM,
        channels_dir="/run/c",
        console="/run/k",
        disks={"vda": "/new/disk", "vdb": "/dev/new", "hdc": "/x"},
        displays={"vnc": "192.0.2.9"},
    )
    expected = (
        XML.replace("/old/disk", "/new/disk")
        .replace("/dev/old", "/dev/new")
        .replace("/old/console", "/run/k")
        .replace("192.0.2.1", "192.0.2.9")
        .replace("/old/a", f"/run/c/{VM}.org.qemu.guest_agent.0")
    )
    assert moved == etree.tostring(etree.fromstring(expected), encoding="unicode")
    assert relocated(moved, vm_id=VM, channels_dir="/run/c", console="/run/k", disks={}) == moved


@pytest.mark.parametrize("xml", ["", "no xml", "<domain/>", XML.replace("1111", "2222")])
def test_what_is_not_the_machines_is_refused(xml: str) -> None:
    with pytest.raises(Invalid):
        relocated(xml, vm_id=VM, channels_dir="/run/c", console="/run/k", disks={})


def test_scripts_get_the_devices_one_by_one() -> None:
    assert [etree.fromstring(element).tag for element in devices(XML)] == [
        *["disk"] * 3,
        "interface",
        *["graphics"] * 2,
    ]
