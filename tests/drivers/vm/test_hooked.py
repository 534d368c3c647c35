"""An operator's scripts in the life of a machine: when they run, with what, what they change, and what their failure does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError, Failed
from drivers.hooks import POINTS, XML, HookFailed, Hooks
from drivers.vm.hooked import Hooked
from tests.drivers.vm.changes.test_changing import XML as DOMAIN
from tests.drivers.vm.conftest import VM
from tests.drivers.vm.stand import Stand
from vdsmd.api.codes import code_of

MAC = "00:1a:4a:16:01:51"
NIC = {
    "type": "interface",
    "device": "bridge",
    "network": "br0",
    "macAddr": MAC,
    "alias": "net0",
    "custom": {"speed": "9"},
}
OTHER_NIC = {"type": "interface", "device": "bridge", "network": "br0", "macAddr": "00:1a:4a:16:01:52"}
DISK = {"type": "disk", "device": "disk", "iface": "virtio", "path": "/a"}
DISKS_XML = DOMAIN.format(disk="/a", cd="")


class Scripts:
    """A folder of hooks, and what they noted."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "hooks"
        self.notes = base / "notes"
        self.notes.touch()

    def add(self, point: str, body: str = "") -> None:
        path = self.folder / point / "10_script"
        path.parent.mkdir(parents=True, exist_ok=True)
        note = f'echo "{point} $vmId $speed $colour|$(cat "$_hook_domxml")" | tr "\\n" " " >>{self.notes}; echo >>{self.notes}'
        path.write_text(f"#!/bin/sh\n{note}\n{body}\n")
        path.chmod(0o755)

    def add_all(self) -> None:
        for point, kind in POINTS.items():
            if kind == XML:
                self.add(point)

    def noted(self) -> list[str]:
        """Return the points that were run since the last time."""
        return [line.split()[0] for line in self.lines()]

    def lines(self) -> list[str]:
        lines = self.notes.read_text().splitlines()
        self.notes.write_text("")
        return [line.strip() for line in lines]


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.fixture
def hooked(stand: Stand, scripts: Scripts) -> Stand:
    """Give a driver with hooks."""
    stand.driver.hooks = Hooks(str(scripts.folder))
    return stand


@pytest.fixture
def up(hooked: Stand, scripts: Scripts) -> Stand:
    """Give one with a machine that is up, of which nothing has been noted yet."""
    hooked.create(VM, devices=[NIC, OTHER_NIC, DISK], custom={"colour": "red"}, maxVCpus=4)
    hooked.await_status(VM, "Up")
    hooked.calm()
    hooked.libvirt.xmls[VM] = DISKS_XML
    hooked.libvirt.answers["has"] = False
    scripts.add_all()
    return hooked


def test_a_start_and_an_end(hooked: Stand, scripts: Scripts) -> None:
    scripts.add_all()
    hooked.libvirt.xmls[VM] = DISKS_XML
    hooked.create(VM, devices=[NIC, OTHER_NIC], custom={"colour": "red", "speed": "of the machine"})
    hooked.await_status(VM, "Up")
    hooked.calm()
    assert scripts.lines() == [
        f"before_device_create {VM} of the machine red|interface",
        f"before_vm_start {VM} of the machine red|{VM}",
        f"after_vm_start {VM} of the machine red|{DISKS_XML}",
        f"after_device_create {VM} of the machine red|{nic_in(DISKS_XML)}",
    ]
    hooked.destroy(VM)
    assert scripts.lines() == [
        f"before_vm_destroy {VM} of the machine red|",
        f"before_device_destroy {VM} of the machine red|{nic_in(DISKS_XML)}",
        f"after_device_destroy {VM} of the machine red|{nic_in(DISKS_XML)}",
        f"after_vm_destroy {VM} of the machine red|{DISKS_XML}",
    ]


def nic_in(xml: str) -> str:
    return xml[xml.index("<interface") : xml.index("</devices>")].replace("'", '"')


def test_the_domain_is_what_the_scripts_make_of_it(hooked: Stand, scripts: Scripts) -> None:
    scripts.add("before_vm_start", 'printf other >"$_hook_domxml"')
    scripts.add("before_device_create", 'printf "<interface x=\\"1\\"/>" >"$_hook_domxml"')
    hooked.create(VM, devices=[NIC, OTHER_NIC])
    hooked.calm()
    assert hooked.libvirt.calls("create") == ["other"]
    assert hooked.libvirt.amended[VM] == ['<interface x="1"/>', "interface"]


@pytest.mark.parametrize("point", ["before_vm_start", "before_device_create"])
def test_a_start_that_is_forbidden(hooked: Stand, scripts: Scripts, point: str) -> None:
    scripts.add(point, "echo not today >&2; exit 1")
    hooked.create(VM, devices=[NIC])
    ended = hooked.await_status(VM, "Down")
    assert (ended["exitCode"], ended["exitMessage"]) == (1, f"Hook {point} failed: 10_script: not today")
    assert hooked.libvirt.calls("create") == []
    hooked.destroy(VM)


def test_a_failure_after_something_changes_nothing(hooked: Stand, scripts: Scripts) -> None:
    for point in ("after_vm_start", "after_device_create", "after_vm_pause", "after_vm_destroy", "before_vm_destroy"):
        scripts.add(point, "exit 1")
    hooked.libvirt.xmls[VM] = DISKS_XML
    hooked.create(VM, devices=[NIC])
    hooked.await_status(VM, "Up")
    hooked.does(VM, lambda: hooked.driver.deeds.pause(VM))
    assert hooked.status(VM) == "Paused"
    hooked.destroy(VM)


def does(up: Stand, name: str) -> None:
    deeds, changes = up.driver.deeds, up.driver.changes
    calls: dict[str, Callable[[], object]] = {
        "pause": lambda: deeds.pause(VM),
        "cont": lambda: deeds.cont(VM),
        "ticket": lambda: deeds.set_ticket(VM, "secret", 60, "keep", {"speed": "8"}),
        "plug disk": lambda: changes.drives.hotplug({"vmId": VM, "drive": {**DISK, "path": "/b"}}),
        "unplug disk": lambda: changes.drives.hotunplug({"vmId": VM, "drive": {"path": "/a"}}),
        "plug nic": lambda: changes.nics.hotplug({"vmId": VM, "nic": {**NIC, "macAddr": MAC.replace("51", "53")}}),
        "unplug nic": lambda: changes.nics.hotunplug({"vmId": VM, "nic": {"macAddr": MAC}}),
        "update": lambda: changes.nics.update(VM, {"deviceType": "interface", "alias": "net0", "linkActive": False}),
        "password": lambda: changes.nics.update(
            VM, {"deviceType": "graphics", "graphicsType": "vnc", "password": "x", "ttl": 5, "params": {"speed": "8"}}
        ),
        "memory": lambda: changes.resources.hotplug_memory({"vmId": VM, "memory": {"size": 64, "node": 0}}),
        "cpus": lambda: changes.resources.set_cpus(VM, 2),
    }
    up.does(VM, calls[name])


POINTS_OF = {
    "pause": "vm_pause",
    "cont": "vm_cont",
    "ticket": "vm_set_ticket",
    "plug disk": "disk_hotplug",
    "unplug disk": "disk_hotunplug",
    "plug nic": "nic_hotplug",
    "unplug nic": "nic_hotunplug",
    "update": "update_device",
    "password": "vm_set_ticket",
    "memory": "memory_hotplug",
    "cpus": "set_num_of_cpus",
}
LENIENT = ("ticket", "password")


@pytest.fixture(autouse=True)
def _amends(stand: Stand) -> None:
    """As the real link does, updates have the last word given to whoever asked for it."""
    stand.libvirt.answers["update_nic"] = lambda nic, *, amend, **how: amend("the nic")


@pytest.mark.parametrize("name", POINTS_OF)
def test_each_deed_has_its_points(up: Stand, scripts: Scripts, name: str) -> None:
    does(up, name)
    assert scripts.noted() == [f"before_{POINTS_OF[name]}", f"after_{POINTS_OF[name]}"]


@pytest.mark.parametrize("name", [name for name in POINTS_OF if name not in LENIENT])
def test_each_can_be_forbidden(up: Stand, scripts: Scripts, name: str) -> None:
    scripts.add(f"before_{POINTS_OF[name]}", "exit 2")
    before = up.inside(lambda: up.driver.list_full([VM]))
    asked = {"observe", "xml", "learnt"}
    up.libvirt.asked.clear()
    with pytest.raises(HookFailed) as refused:
        does(up, name)
    assert code_of(refused.value) == 78
    assert up.inside(lambda: up.driver.list_full([VM])) == before
    assert {call for call, _ in up.libvirt.asked} <= {*asked, "update_nic"}
    fails = [f"after_{POINTS_OF[name]}_fail"] if f"after_{POINTS_OF[name]}_fail" in POINTS else []
    # Before something is tried nothing has failed; an element is only made when it is tried.
    assert scripts.noted()[1:] in ([], fails)


@pytest.mark.parametrize("name", LENIENT)
def test_a_ticket_cannot_be_forbidden(up: Stand, scripts: Scripts, name: str) -> None:
    scripts.add("before_vm_set_ticket", "exit 1")
    does(up, name)
    assert up.libvirt.asked[-1][0].startswith("ticket") or any(c.startswith("ticket") for c, _ in up.libvirt.asked)


@pytest.mark.parametrize(("name", "call"), [("plug nic", "attach"), ("unplug nic", "detach"), ("update", "update_nic")])
def test_what_fails_is_told_where_there_is_a_point_for_it(up: Stand, scripts: Scripts, name: str, call: str) -> None:
    def refuse(*args: Any, **how: Any) -> None:
        if "amend" in how:
            how["amend"]("the nic")
        raise Failed(action="changing", reason="no")

    up.libvirt.answers[call] = refuse
    with pytest.raises(DriverError, match="no"):
        does(up, name)
    assert scripts.noted() == [f"before_{POINTS_OF[name]}", f"after_{POINTS_OF[name]}_fail"]


def test_what_is_plugged_in_is_what_the_scripts_make_of_it(up: Stand, scripts: Scripts) -> None:
    got: list[str] = []
    up.libvirt.answers["attach"] = got.append
    scripts.add("before_nic_hotplug", 'printf changed >"$_hook_domxml"')
    does(up, "plug nic")
    assert got == ["changed"]
    assert [line.partition("|")[2] for line in scripts.lines()] == ["interface", "changed"]


def test_scripts_get_the_properties_of_device_and_caller(up: Stand, scripts: Scripts) -> None:
    does(up, "plug nic")
    does(up, "ticket")
    assert [line.split("|")[0].split()[2:] for line in scripts.lines()] == 2 * [["9", "red"]] + 2 * [["8", "red"]]


def test_scripts_after_an_unplug_see_what_was_unplugged(up: Stand, scripts: Scripts) -> None:
    does(up, "unplug nic")
    elements = [line.partition("|")[2] for line in scripts.lines()]
    assert elements == 2 * [nic_in(DISKS_XML)]


def test_that_a_domain_cannot_be_seen_keeps_no_script_from_running(up: Stand, scripts: Scripts) -> None:
    up.libvirt.domains.clear()
    up.destroy(VM)
    assert scripts.noted() == [
        "before_vm_destroy", "before_device_destroy", "after_device_destroy", "after_vm_destroy",
    ]  # fmt: skip


def test_the_devices_of_a_definition_come_one_by_one_with_their_properties(scripts: Scripts) -> None:
    scripts.add("before_device_migrate_source")
    conf = {"vmId": VM, "devices": [NIC, OTHER_NIC, DISK], "custom": {"colour": "red"}}
    Hooked(lambda: Hooks(str(scripts.folder))).over_devices("before_device_migrate_source", conf, DISKS_XML)
    lines = scripts.lines()
    assert lines[-1] == f"before_device_migrate_source {VM} 9 red|{nic_in(DISKS_XML)}"
    assert len(lines) == 4 and all(
        line.startswith(f"before_device_migrate_source {VM}  red|<disk") for line in lines[:-1]
    )
