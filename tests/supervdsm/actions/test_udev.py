"""udev's rules: whole, harmless, gone with the guest. What udevadm is told is written down by a stand-in of root's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from supervdsm.errors import ActionError, Failed, Invalid, NotAllowed, NotFound, Unsupported
from supervdsm.registry import Context
from tests.supervdsm.actions.place import GID, UID, call, inside, mount_tmpfs

VM = "0a1b2c3d-0000-4000-8000-00000000abcd"
OTHER = "0a1b2c3d-0000-4000-8000-00000000abce"


def udevadm(where: Context, code: int = 0) -> Path:
    """Put a udevadm where only root can, for this mount namespace, and return what it writes down."""
    told = Path(where.lib_dir).parent / "told"
    place = os.path.realpath("/usr/sbin")
    mount_tmpfs(place)
    fake = Path(place, "udevadm")
    fake.write_text(f'#!/bin/sh\necho "$@" >> {told}\necho no udevd here >&2\nexit {code}\n')
    fake.chmod(0o755)
    return told


def _rules(where: Context) -> list[str]:
    return sorted(os.listdir(where.udev_rules)) if os.path.isdir(where.udev_rules) else []


def test_a_lun_is_given_to_the_user_and_taken_away(where: Context) -> None:
    def deed() -> None:
        told = udevadm(where)
        for _ in range(2):
            name = call(where, "udev.grant_lun", guid="3600a0b80001", vm=VM)
        assert name == f"99-vdsmd-lun-3600a0b80001-{VM}.rules"
        assert _rules(where) == [name]
        rule = Path(where.udev_rules, name)
        assert rule.read_text() == (
            'ACTION!="remove", SUBSYSTEM=="block", ENV{DM_UUID}=="mpath-3600a0b80001", '
            f'OWNER="{UID}", GROUP="{GID}", MODE="0660"\n'
        )
        assert rule.stat().st_mode & 0o777 == 0o644
        trigger = "trigger --settle --action=change --subsystem-match=block --property-match=DM_UUID=mpath-3600a0b80001"
        assert told.read_text().splitlines() == ["control --reload", trigger] * 2
        call(where, "udev.grant_lun", guid="3600a0b80001", vm=OTHER)
        assert call(where, "udev.revoke", vm=VM.upper()) == [name]
        assert call(where, "udev.revoke", vm=VM) == []
        assert _rules(where) == [f"99-vdsmd-lun-3600a0b80001-{OTHER}.rules"]

    inside(deed)


def test_other_devices_are_given_too(where: Context) -> None:
    def deed() -> None:
        told = udevadm(where)
        Path(where.sysfs, "kernel/iommu_groups/12").mkdir(parents=True)
        names = [
            call(where, "udev.grant_iommu_group", group=12, vm=VM),
            call(where, "udev.grant_usb", bus=1, device=3, vm=VM),
        ]
        text = "".join(Path(where.udev_rules, name).read_text() for name in names)
        assert 'SUBSYSTEM=="vfio", KERNEL=="12", ' in text
        assert 'SUBSYSTEM=="usb", ATTR{busnum}=="1", ATTR{devnum}=="3", ' in text
        told.unlink()
        assert call(where, "udev.revoke", vm=VM) == sorted(names)
        assert "--sysname-match=12" in told.read_text() and "--attr-match=devnum=3" in told.read_text()
        with pytest.raises(NotFound):
            call(where, "udev.grant_iommu_group", group=13, vm=VM)

    inside(deed)


def test_a_rule_that_udev_does_not_take_is_not_left(where: Context) -> None:
    def deed() -> None:
        udevadm(where, code=2)
        with pytest.raises(Failed, match="no udevd here"):
            call(where, "udev.grant_lun", guid="3600a", vm=VM)
        assert _rules(where) == []

    inside(deed)


def test_a_host_without_udev_says_so(where: Context) -> None:
    def deed() -> None:
        for path in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            mount_tmpfs(os.path.realpath(path))
        with pytest.raises(Unsupported, match="udevadm"):
            call(where, "udev.grant_lun", guid="3600a", vm=VM)
        assert _rules(where) == []

    inside(deed)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("udev.grant_lun", {"guid": '3600", RUN+="/tmp/x', "vm": VM}),
        ("udev.grant_lun", {"guid": "3600\nRUN", "vm": VM}),
        ("udev.grant_lun", {"guid": "../x", "vm": VM}),
        ("udev.grant_lun", {"guid": "*", "vm": VM}),
        ("udev.grant_lun", {"guid": "", "vm": VM}),
        ("udev.grant_lun", {"guid": "3600", "vm": "../x"}),
        ("udev.grant_lun", {"guid": "3600", "vm": VM + "\n"}),
        ("udev.grant_usb", {"bus": 0, "device": 1, "vm": VM}),
        ("udev.grant_usb", {"bus": 1, "device": 1000, "vm": VM}),
        ("udev.grant_usb", {"bus": "1", "device": 1, "vm": VM}),
        ("udev.grant_iommu_group", {"group": -1, "vm": VM}),
        ("udev.revoke", {"vm": "*"}),
        ("udev.revoke", {"vm": ""}),
    ],
)
def test_what_could_say_more_than_it_should_is_refused(where: Context, name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ActionError) as raised:
        call(where, name, **wrong)
    assert isinstance(raised.value, Invalid | NotFound)
    assert _rules(where) == []


@pytest.mark.parametrize("holder", [False, True])
def test_what_the_host_has_mounted_is_not_given_away(where: Context, holder: bool) -> None:
    mounted = os.stat("/dev").st_dev
    block = Path(where.sysfs, "block")
    numbers = {"dm-0": "250:0", "dm-1": "250:1"} | {f"dm-{int(holder)}": f"{os.major(mounted)}:{os.minor(mounted)}"}
    for name, number in numbers.items():
        (block / name / "dm").mkdir(parents=True)
        (block / name / "dev").write_text(f"{number}\n")
    (block / "dm-0/dm/uuid").write_text("mpath-3600a\n")
    (block / "dm-0/holders/dm-1").mkdir(parents=True)
    with pytest.raises(NotAllowed, match="/dev"):
        call(where, "udev.grant_lun", guid="3600a", vm=VM)
    assert _rules(where) == []


def test_a_usb_disk_that_the_host_has_mounted_is_not_given_away(where: Context) -> None:
    mounted = os.stat("/dev").st_dev
    stick = Path(where.sysfs, "bus/usb/devices/1-2")
    partition = stick / "1-2:1.0/host7/target7:0:0/7:0:0:0/block/sdx/sdx1"
    partition.mkdir(parents=True)
    for name, text in (("busnum", "1"), ("devnum", "3"), ("dev", "189:2")):
        (stick / name).write_text(f"{text}\n")
    (partition / "dev").write_text(f"{os.major(mounted)}:{os.minor(mounted)}\n")
    with pytest.raises(NotAllowed, match="USB device 1, 3 is this host's own: it is mounted at /dev"):
        call(where, "udev.grant_usb", bus=1, device=3, vm=VM)
    assert _rules(where) == []
