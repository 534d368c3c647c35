"""What a machine has on the host beside its domain: it is there when the machine starts, and gone when it has ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drivers.errors import Failed
from drivers.vm.hypervisor.kinds import HYPERVISORS
from drivers.vm.made import layers, taps
from supervdsm.errors import NoHelper, NotFound
from tests.drivers.vm.changes.test_changing import XML
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.fake import ROW, FakeLibvirt
from tests.drivers.vm.made.test_payload import device, said
from tests.drivers.vm.stand import Stand
from tests.until import until

pytestmark = pytest.mark.slow

MAC, SECOND = "00:1a:4a:16:01:51", "00:1a:4a:16:01:52"
NIC = {"type": "interface", "device": "bridge", "network": "br0", "macAddr": MAC, "alias": "net0"}
TAPPED = msgspec.structs.replace(ROW, taps=True)


class FakeRoot:
    """Stands for the helper and the kernel: taps and the bridges that they are in."""

    def __init__(self) -> None:
        self.taps: dict[str, str] = {}
        self.given: list[tuple[Any, ...]] = []
        """What taps were given beside their bridges."""
        self.refuses: Exception | None = None

    def call(self, action: str, *, timeout: float | None = None, **given: Any) -> Any:
        if self.refuses is not None:
            raise self.refuses
        if action == "tap.create":
            self.taps[given["name"]] = given["bridge"]
        elif action == "tap.delete":
            self.taps.pop(given["name"], None)
        else:
            self.given.append((action, *given.values()))


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> FakeRoot:
    root = FakeRoot()
    monkeypatch.setattr(taps, "present", lambda vm_id: [name for name in root.taps if taps.is_of(vm_id, name)])
    monkeypatch.setattr(taps, "_mtu", lambda bridge: 1500)
    return root


@pytest.fixture
def tapped(build: Callable[..., Stand], root: FakeRoot) -> Stand:
    """Give a driver whose guests need taps."""
    return build(FakeLibvirt(TAPPED), root=root)


def media(stand: Stand) -> list[str]:
    folder = Path(stand.host.run_dir) / "payload"
    return sorted(os.listdir(folder)) if folder.exists() else []


def refuse(*args: Any, **how: Any) -> None:
    raise Failed(action="plugging in", reason="no room")


def started(stand: Stand, vm_id: str, *devices: dict[str, Any]) -> list[dict[str, Any]]:
    stand.create(vm_id, devices=list(devices))
    stand.await_status(vm_id, "Up")
    stand.calm()
    found: list[dict[str, Any]] = stand.inside(lambda: stand.driver.list_full([vm_id]))[0]["devices"]
    return found


def test_names_of_taps_fit_and_tell_their_machine() -> None:
    names = {taps.name_of(vm_id, mac) for vm_id in (VM, OTHER) for mac in (MAC, SECOND)}
    assert len(names) == 4 and all(len(name) <= 15 and name.startswith("vd") for name in names)
    assert taps.name_of(VM, MAC) == taps.name_of(VM.upper(), MAC.upper())
    assert [taps.is_of(VM, name) for name in sorted(names)].count(True) == 2
    assert taps.name_of(VM, "") != taps.name_of(VM, "")


def test_which_hypervisor_needs_taps_is_a_matter_of_its_row() -> None:
    assert [row.prefix for row in HYPERVISORS if row.taps] == ["qemu:///embed?root="]


def test_nics_get_taps_which_go_with_their_machine(tapped: Stand, root: FakeRoot) -> None:
    nics = started(tapped, VM, NIC, {**NIC, "macAddr": SECOND, "network": "", "name": "eth0"})
    (tap,) = root.taps
    assert (nics[0]["name"], nics[0]["network"], root.taps[tap]) == (tap, "br0", "br0")
    assert nics[1]["name"] == "eth0"
    started(tapped, OTHER, NIC)
    tapped.destroy(VM)
    assert [taps.is_of(OTHER, name) for name in root.taps] == [True]
    tapped.libvirt.crash(OTHER)
    tapped.await_status(OTHER, "Down")
    until(lambda: not root.taps, 60)


@pytest.mark.parametrize("error", [NoHelper("there is no helper"), NotFound("there is no bridge br0")])
def test_a_nic_that_cannot_be_plugged_in_keeps_its_machine_from_starting(
    tapped: Stand, root: FakeRoot, error: Exception
) -> None:
    root.refuses = error
    tapped.create(VM, devices=[NIC])
    ended = tapped.await_status(VM, "Down")
    assert ended["exitMessage"] == f"plugging a nic into bridge br0 failed: {error}"
    assert tapped.libvirt.calls("create") == []


def test_a_bridge_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="plugging a nic into bridge no-such-one failed: there is no such bridge"):
        taps.plug(FakeRoot(), {"name": "vdx", "network": "no-such-one"})


def test_a_start_that_fails_leaves_nothing(tapped: Stand, root: FakeRoot) -> None:
    tapped.libvirt.refuses[VM] = Failed(action="starting", reason="no")
    tapped.create(VM, devices=[NIC, device("floppy", said())])
    tapped.await_status(VM, "Down")
    until(lambda: not root.taps and not media(tapped), 60)


def test_what_an_earlier_run_left_of_a_machine_that_has_ended_goes(build: Callable[..., Stand], root: FakeRoot) -> None:
    first = build(FakeLibvirt(TAPPED), root=root)
    started(first, VM, NIC, device("floppy", said()))
    left = first.stop()
    first.libvirt.domains.clear()
    assert root.taps and media(first)
    second = build(first.libvirt, root=root, left=left)
    second.await_status(VM, "Down")
    until(lambda: not root.taps and not media(second), 60)
    root.taps[taps.name_of(VM, SECOND)] = "br0"
    third = build(second.libvirt, root=root, left=second.stop())
    until(lambda: not root.taps, 60)
    third.calm()


def test_a_successor_keeps_what_is_its_own(tapped: Stand, root: FakeRoot) -> None:
    started(tapped, VM, NIC)
    gate = tapped.libvirt.gates["other"] = threading.Event()
    tapped.deed(VM, gate.wait)
    old = tapped.driver._machines.get(VM)
    tapped.inside(lambda: tapped.driver.works.belongings.ended(old))
    tapped.driver._machines.remove(old)
    tapped.libvirt.domains.clear()
    tapped.create(VM, devices=[NIC])
    gate.set()
    tapped.calm()
    assert list(root.taps) == [taps.name_of(VM, MAC)]


def test_hot_plugged_nics_have_taps_too(tapped: Stand, root: FakeRoot) -> None:
    started(tapped, VM, NIC)
    tapped.libvirt.xmls[VM] = XML.format(disk="", cd="")
    first, second = taps.name_of(VM, MAC), taps.name_of(VM, SECOND)
    nic = {"device": "bridge", "network": "br1", "macAddr": SECOND}
    changes = tapped.driver.changes
    tapped.does(VM, lambda: changes.nics.hotplug({"vmId": VM, "nic": nic}))
    assert root.taps == {first: "br0", second: "br1"}
    tapped.libvirt.answers["has"] = False
    tapped.does(VM, lambda: changes.nics.hotunplug({"vmId": VM, "nic": {"macAddr": SECOND}}))
    assert root.taps == {first: "br0"}
    tapped.libvirt.answers["attach"] = refuse
    with pytest.raises(Failed, match="no room"):
        tapped.does(VM, lambda: changes.nics.hotplug({"vmId": VM, "nic": nic}))
    assert root.taps == {first: "br0"}


def test_a_nic_that_is_let_go_of_late_loses_its_tap(tapped: Stand, root: FakeRoot) -> None:
    started(tapped, VM, NIC)
    tapped.libvirt.tell(VM, "unplugged", "net0")
    until(lambda: not root.taps, 60)


def test_another_network_is_another_bridge_for_the_tap(tapped: Stand, root: FakeRoot) -> None:
    started(tapped, VM, NIC)
    tap = taps.name_of(VM, MAC)
    asked = []
    tapped.libvirt.answers["update_nic"] = lambda nic, **how: asked.append(how["network"])

    def update(**said: Any) -> None:
        params = {"deviceType": "interface", "alias": "net0", **said}
        tapped.does(VM, lambda: tapped.driver.changes.nics.update(VM, params))

    for network in ("br1", "", "br2"):
        update(network=network)
        assert root.taps == {tap: network}
    assert asked == [None, None, None]
    root.refuses = NotFound("there is no bridge br3")
    with pytest.raises(Failed, match="br3"):
        update(network="br3")
    assert tapped.inside(lambda: tapped.driver.list_full([VM]))[0]["devices"][0]["network"] == "br2"


def test_a_tap_has_the_filter_limits_and_mirrors_that_its_nic_asks_for(tapped: Stand, root: FakeRoot) -> None:
    limits = {"inbound": {"average": "1000", "burst": 10}, "outbound": {"average": 500}}
    asked = {"filter": "vdsm-no-mac-spoofing", "specParams": limits, "portMirroring": ["red", "blue"]}
    started(tapped, VM, {**NIC, **asked})
    tap = taps.name_of(VM, MAC)
    mirrors = [("mirror.set", bridge, tap) for bridge in ("red", "blue")]
    assert root.given == [("filter.set", tap, MAC, 500, 0), ("tap.limit", tap, 1000, 10), *mirrors]

    def update(**said: Any) -> list[tuple[Any, ...]]:
        root.given.clear()
        params = {"deviceType": "interface", "alias": "net0", **said}
        tapped.does(VM, lambda: tapped.driver.changes.nics.update(VM, params))
        return root.given

    tapped.libvirt.answers["update_nic"] = lambda nic, **how: seen.append(how["limits"])
    seen: list[Any] = []
    changed = update(portMirroring=["blue"])
    assert changed == [
        ("filter.set", tap, MAC, 500, 0),
        ("tap.limit", tap, 1000, 10),
        ("mirror.unset", "red", tap),
        mirrors[1],
    ]
    assert update(specParams={})[:2] == [("filter.set", tap, MAC, 0, 0), ("tap.limit", tap, 0, 0)]
    assert update(linkActive=False) == []
    assert update(portMirroring=[]) == [("filter.set", tap, MAC, 0, 0), ("mirror.unset", "blue", tap)]
    assert seen == [None] * 4
    with pytest.raises(Failed, match="portMirroring"):
        update(portMirroring=[1])
    root.refuses = NotFound("there is no bridge green")
    with pytest.raises(Failed, match="green"):
        update(portMirroring=["green"])
    assert tapped.inside(lambda: tapped.driver.list_full([VM]))[0]["devices"][0]["portMirroring"] == []


def test_a_nic_whose_tap_is_libvirts_watches_networks_too(build: Callable[..., Stand], root: FakeRoot) -> None:
    stand = build(FakeLibvirt(ROW), root=root)
    started(stand, VM, {**NIC, "name": "vnet7", "portMirroring": ["red"]})
    assert root.given == [("mirror.set", "red", "vnet7")]
    params = {"deviceType": "interface", "alias": "net0", "portMirroring": ["blue"]}
    stand.does(VM, lambda: stand.driver.changes.nics.update(VM, params))
    assert root.given[1:] == [("mirror.unset", "red", "vnet7"), ("mirror.set", "blue", "vnet7")]
    stand.destroy(VM)
    assert root.given[3:] == [("mirror.unset", "blue", "vnet7")]


def test_media_are_made_at_the_start_and_go_with_their_machine(stand: Stand) -> None:
    (cd,) = started(stand, VM, device("cdrom", said(volId="config-2"), path="/etc/passwd"))
    assert cd["path"] == f"{stand.host.run_dir}/payload/{media(stand)[0]}"
    assert stand.libvirt.definitions[VM]["devices"][0]["path"] == cd["path"]
    left = stand.inside(stand.driver.snapshot)
    assert left.machines[0].conf["devices"][0]["specParams"]["vmPayload"]["file"]
    stand.destroy(VM)
    assert media(stand) == []


def test_disks_named_by_a_storage_domain_are_found_at_the_start(stand: Stand) -> None:
    class Images:
        def prepare(self, drive: dict[str, Any]) -> str:
            return f"/rhev/{drive['volumeID']}"

        def mark(self, drive: dict[str, Any], volume: str, *, legal: bool) -> None:
            """Nothing is marked here."""

        def release(self, drive: dict[str, Any]) -> None:
            """Nothing was made."""

    named = {"type": "disk", "device": "disk", "imageID": "i", "volumeID": "v", "domainID": "d", "poolID": "p"}
    stand.create(VM, devices=[named])
    assert "storage domain" in stand.await_status(VM, "Down")["exitMessage"]
    stand.driver.images = Images()
    (disk,) = started(stand, OTHER, named)
    assert disk["path"] == "/rhev/v"


def test_what_a_guest_writes_to_a_transient_disk_is_thrown_away(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 4096)
    disk = {"type": "disk", "device": "disk", "path": f"{tmp_path}/disk", "shared": "transient"}
    (layer,) = started(stand, VM, disk)
    assert layer["format"] == "cow" and os.path.exists(layer["path"])
    stand.destroy(VM)
    assert not os.path.exists(layer["path"])
    stand.create(VM, devices=[{**disk, "path": f"{tmp_path}/none"}])
    assert f"making a layer for {tmp_path}/none failed" in stand.await_status(VM, "Down")["exitMessage"]


def test_layers_of_machines_that_ended_with_the_host_are_thrown_away(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(stand.host.lib_dir) / "transient"
    folder.mkdir()
    for vm_id in (VM, OTHER):
        (folder / f"{vm_id}.vda.cow").touch()
    layers.forget_other_boots(str(folder), [])
    assert len(list(folder.iterdir())) == 2  # of this boot: whose they are will be found out
    monkeypatch.setattr("time.clock_gettime", lambda clock: -60.0)  # the host is booted in a minute
    stand.inside(lambda: stand.driver.works.belongings.sweep([OTHER]))
    until(lambda: [path.name for path in folder.iterdir()] == [f"{OTHER}.vda.cow"], 60)
