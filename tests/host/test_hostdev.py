"""The devices of a host: their names, and whose part they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.hosts import Layout
from vdsmd.api.xmlrpc import decode_reply, encode_reply
from vdsmd.host.files import Files
from vdsmd.host.hostdev import WHOLE, devices

BRIDGE = "/sys/devices/pci0000:00/0000:00:1c.0"
CARD = f"{BRIDGE}/0000:05:00.0"
FUNCTION = f"{BRIDGE}/0000:05:00.1"
USB = "/sys/devices/pci0000:00/0000:00:14.0"
DISK = f"{CARD}/host2/target2:0:1/2:0:1:0"


PCI_IDS = """\
# comment
8086  Intel Corporation
\t1521  I350 Gigabit
\t\t8086 0001  Some card
\t9998  Other
1234  Nobody
\t9999  Not ours
C 00  Unclassified
\t1520  Not a device
"""


class Machine(Layout):
    def add(self, bus: str, place: str, **facts: str) -> None:
        """Put a device at `place`, and a link to it into its bus."""
        for name, text in facts.items():
            self.write(f"{place}/{name}", f"{text}\n")
        self.make(place)
        self.link(f"{bus}/{os.path.basename(place)}", place)

    def link(self, path: str, target: str) -> None:
        where = self.root / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.symlink_to(self.root / target.lstrip("/"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    pci = "/sys/bus/pci/devices"
    made.add(pci, BRIDGE, vendor="0x8086", device="0x1234")
    made.add(pci, CARD, vendor="0x8086", device="0x1521", sriov_totalvfs="7")
    made.add(pci, FUNCTION, vendor="0x8086", device="0x1520")
    made.add(pci, USB, vendor="0x8086", device="0x9999")
    made.link(f"{CARD}/iommu_group", "/sys/kernel/iommu_groups/11")
    made.link(f"{FUNCTION}/physfn", CARD)
    made.add(
        "/sys/bus/usb/devices", f"{USB}/usb1", idVendor="1d6b", idProduct="0002", manufacturer="Linux", product="Hub"
    )
    made.add("/sys/bus/usb/devices", f"{USB}/usb1/1-1.2", idVendor="046d", idProduct="c52b")
    made.add("/sys/bus/usb/devices", f"{USB}/usb1/1-1.2/1-1.2:1.0")
    made.add("/sys/bus/scsi/devices", f"{CARD}/host2")
    made.add("/sys/bus/scsi/devices", f"{CARD}/host2/target2:0:1")
    made.add("/sys/bus/scsi/devices", DISK, vendor="ACME    ", model="Disk")
    made.add("/sys/class/net", f"{CARD}/net/ens5", address="02:00:00:00:00:05")
    made.link(f"{CARD}/net/ens5/device", CARD)
    made.write(
        "/usr/share/misc/pci.ids",
        PCI_IDS,
    )
    return made


def test_every_device_has_its_name_and_parent(machine: Machine) -> None:
    found = devices(machine.files)
    assert {name: device["params"].get("parent") for name, device in found.items()} == {
        WHOLE: None,
        "net_ens5_02_00_00_00_00_05": "pci_0000_05_00_0",
        "pci_0000_00_14_0": WHOLE,
        "pci_0000_00_1c_0": WHOLE,
        "pci_0000_05_00_0": "pci_0000_00_1c_0",
        "pci_0000_05_00_1": "pci_0000_00_1c_0",
        "scsi_2_0_1_0": "scsi_target2_0_1",
        "scsi_host2": "pci_0000_05_00_0",
        "scsi_target2_0_1": "scsi_host2",
        "usb_1_1_2": "usb_usb1",
        "usb_usb1": "pci_0000_00_14_0",
    }


def test_what_is_told_of_a_device(machine: Machine) -> None:
    found = devices(machine.files)
    assert found["pci_0000_05_00_0"]["params"] == {
        "capability": "pci",
        "vendor_id": "0x8086",
        "product_id": "0x1521",
        "vendor": "Intel Corporation",
        "product": "I350 Gigabit",
        "iommu_group": 11,
        "totalvfs": 7,
        "parent": "pci_0000_00_1c_0",
    }
    function = found["pci_0000_05_00_1"]["params"]
    assert (function["physfn"], function["product"], "totalvfs" in function) == ("pci_0000_05_00_0", "", False)
    assert found["usb_usb1"]["params"]["product"] == "Hub"
    assert found["usb_1_1_2"]["params"]["vendor_id"] == "0x046d"
    assert found["scsi_2_0_1_0"]["params"] == {
        "capability": "scsi",
        "vendor": "ACME",
        "product": "Disk",
        "parent": "scsi_target2_0_1",
    }


def test_the_list_can_be_limited(machine: Machine) -> None:
    assert set(devices(machine.files, ["usb_device"])) == {"usb_usb1", "usb_1_1_2"}
    assert set(devices(machine.files, ["scsi", "system"])) == {"scsi_2_0_1_0", WHOLE}
    assert devices(machine.files, ["nonsense"]) == {}


@pytest.mark.parametrize("root", ["/", "empty"])
def test_any_host_has_a_list_that_can_be_sent(root: str, tmp_path: Path) -> None:
    found = devices(Files(root if root == "/" else str(tmp_path)))
    assert decode_reply(encode_reply(found)) == found
    parents = {device["params"].get("parent", WHOLE) for device in found.values()}
    assert parents <= found.keys()
