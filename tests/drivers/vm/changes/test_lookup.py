"""Which device a caller means: exactly one, or none."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.vm.changes import lookup
from drivers.vm.errors import ImageUnavailable, NoSuchDevice

Struct = dict[str, Any]

IDS = {"poolID": "p", "domainID": "d", "imageID": "i", "volumeID": "v"}
CONF: Struct = {
    "devices": [
        {"type": "disk", "device": "disk", "name": "vda", "path": "/a", "alias": "virtio-disk0", **IDS},
        {"type": "disk", "device": "disk", "name": "vdb", "path": "/b", **IDS, "imageID": "j", "volumeID": "w"},
        {"type": "disk", "device": "lun", "name": "sda", "path": "/dev/mapper/g", "GUID": "g"},
        {"type": "disk", "device": "disk", "name": "vdc", "path": "/c"},
        {"type": "disk", "device": "cdrom", "name": "hdd", "path": "", "specParams": {"vmPayload": {"file": {}}}},
        {"type": "disk", "device": "cdrom", "name": "hda", "path": ""},
        {"type": "disk", "device": "cdrom", "name": "hdc", "path": ""},
        {"type": "interface", "macAddr": "00:1A:4A:16:01:51", "alias": "net0"},
        {"type": "interface", "macAddr": "", "alias": "net1"},
    ]
}

DISKS: list[tuple[Struct, str]] = [
    (IDS, "vda"),
    ({"imageID": "i"}, "vda"),
    ({"imageID": "j", "domainID": "d"}, "vdb"),
    ({**IDS, "path": "/a"}, "vda"),
    ({"GUID": "g"}, "sda"),
    ({"path": "/c"}, "vdc"),
    ({"path": "/c", "imageID": "", "volumeID": ""}, "vdc"),
    ({"name": "vdb"}, "vdb"),
    ({"alias": "virtio-disk0"}, "vda"),
]
NOBODY: list[Struct] = [
    {},
    {"imageID": ""},
    {"imageID": "k"},
    {"domainID": "d"},
    {**IDS, "volumeID": "w"},
    {"imageID": "i", "path": "/b"},
    {"path": "/nowhere"},
    {"name": "vda", "path": "/b"},
    {"poolID": "p", "domainID": "other", "imageID": "i"},
]


@pytest.mark.parametrize(("said", "name"), DISKS)
def test_a_disk(said: Struct, name: str) -> None:
    assert lookup.disk(CONF, said)["name"] == name


@pytest.mark.parametrize("said", NOBODY)
def test_no_disk(said: Struct) -> None:
    with pytest.raises(NoSuchDevice):
        lookup.disk(CONF, said)
    with pytest.raises(ImageUnavailable):
        lookup.image(CONF, said)


def test_a_nic() -> None:
    assert lookup.nic(CONF, {"macAddr": "00:1a:4a:16:01:51"})["alias"] == "net0"
    assert lookup.nic(CONF, {"alias": "net1"})["alias"] == "net1"
    for said in ({}, {"macAddr": "00:1a:4a:16:01:99"}, {"alias": "net7"}):
        with pytest.raises(NoSuchDevice):
            lookup.nic(CONF, said)


def test_a_drive_for_media() -> None:
    assert lookup.drive_for(CONF, "cdrom", {"path": "/x"})["name"] == "hdc"
    assert lookup.drive_for(CONF, "cdrom", {"name": "hda"})["name"] == "hda"
    with pytest.raises(NoSuchDevice):
        lookup.drive_for(CONF, "floppy", {})
    with pytest.raises(NoSuchDevice):
        lookup.drive_for({"devices": [CONF["devices"][4]]}, "cdrom", {})


def test_another_form_of_a_device_is_a_new_configuration() -> None:
    disk = lookup.disk(CONF, {"name": "vdc"})
    moved = lookup.replaced(CONF, disk, path="/moved")
    assert lookup.disk(moved, {"name": "vdc"})["path"] == "/moved"
    assert lookup.disk(CONF, {"name": "vdc"})["path"] == "/c"
    assert len(lookup.without(CONF, disk)["devices"]) == len(CONF["devices"]) - 1
