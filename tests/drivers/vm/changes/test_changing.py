"""Changes: what is written down before and after, what holds when nobody saw the end, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drivers.errors import DriverError, Failed, HypervisorDown, MissingParameter, NoSuchVm, NotBuilt, NotResponding
from drivers.vm import errors
from drivers.vm.contract import Status
from drivers.vm.hypervisor.blocks import JobSeen
from drivers.vm.machine import BlockJob, Machine, Step
from tests.drivers.vm.conftest import OTHER, VM
from tests.drivers.vm.stand import Stand
from tests.until import until
from vdsmd.api.codes import code_of

pytestmark = pytest.mark.slow

Conf = dict[str, Any]

DISK = {
    "type": "disk",
    "device": "disk",
    "iface": "virtio",
    "path": "/a",
    "imageID": "i",
    "volumeID": "a",
    "domainID": "d",
}
CD = {"type": "disk", "device": "cdrom", "iface": "ide", "path": ""}
NIC = {"type": "interface", "device": "bridge", "network": "br0", "macAddr": "00:1a:4a:16:01:51", "alias": "net0"}
FLOPPY = {"type": "disk", "device": "floppy", "path": ""}
DEVICES = [DISK, CD, FLOPPY, NIC]
CHAIN = ["/0", "/a"]

XML = (
    "<domain><memory>65536</memory><vcpu current='1'>4</vcpu><devices>"
    "<disk type='file'><source file='{disk}'/><target dev='vda'/></disk>"
    "<disk type='file' device='cdrom'>{cd}<target dev='hdc'/></disk>"
    "<disk type='file' device='floppy'><target dev='fda'/></disk>"
    "<interface type='bridge'><mac address='00:1a:4a:16:01:51'/><source bridge='br0'/><alias name='net0'/></interface>"
    "</devices></domain>"
)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are looked at often enough for tests."""
    monkeypatch.setattr("drivers.vm.changes.jobs.INTERVAL", 0.02)


@pytest.fixture
def up(stand: Stand) -> Stand:
    """Give a stand with a machine that is up, and has devices."""
    stand.create(VM, devices=DEVICES, maxVCpus=4)
    stand.await_status(VM, "Up")
    stand.calm()
    stand.libvirt.xmls[VM] = XML.format(disk="/a", cd="")
    stand.libvirt.answers["chain"] = CHAIN
    return stand


def machine(stand: Stand) -> Machine:
    return stand.driver._machines.get(VM)


def drive(stand: Stand, name: str) -> Conf:
    return next(device for device in machine(stand).conf["devices"] if device.get("name") == name)


def params(**more: Any) -> Conf:
    return {"vmId": VM, **more}


Change = Callable[[Any], object]

CHANGES: dict[str, tuple[Change, str, type[DriverError], int]] = {
    "changeCD": (lambda c: c.drives.change_medium(VM, "cdrom", "/cd"), "change_medium", errors.ChangeDiskFailed, 41),
    "changeFloppy": (lambda c: c.drives.change_medium(VM, "floppy", "/f"), "change_medium", errors.ChangeDiskFailed, 41),
    "hotplugDisk": (
        lambda c: c.drives.hotplug(params(drive={"path": "/b", "iface": "virtio"})), "attach", errors.HotplugDiskFailed, 45,
    ),
    "hotunplugDisk": (
        lambda c: c.drives.hotunplug(params(drive={"path": "/a"})), "detach", errors.HotunplugDiskFailed, 46,
    ),
    "hotplugNic": (lambda c: c.nics.hotplug(params(nic={"network": "br0"})), "attach", errors.HotplugNicFailed, 49),
    "hotunplugNic": (
        lambda c: c.nics.hotunplug(params(nic={"macAddr": NIC["macAddr"]})), "detach", errors.HotunplugNicFailed, 50,
    ),
    "vmUpdateDevice": (
        lambda c: c.nics.update(VM, {"deviceType": "interface", "alias": "net0", "linkActive": "false"}),
        "update_nic", errors.UpdateDeviceFailed, 56,
    ),
    "hotplugMemory": (
        lambda c: c.resources.hotplug_memory(params(memory={"size": "128"})), "attach", errors.HotplugMemoryFailed, 70,
    ),
    "setNumberOfCpus": (lambda c: c.resources.set_cpus(VM, 3), "set_cpus", errors.CpusFailed, 60),
    "setBalloonTarget": (lambda c: c.resources.set_balloon(VM, 999), "set_balloon", errors.BalloonFailed, 53),
    "setIoTune": (
        lambda c: c.tuning.set_io(VM, [{"name": "vda", "ioTune": {"read_iops_sec": "5"}}]),
        "set_io_limits", errors.IoTuneFailed, 64,
    ),
    "snapshot": (
        lambda c: c.snapshots.take(VM, [{"imageID": "i", "baseVolumeID": "a", "path": "/b"}], "", frozen=True),
        "snapshot", errors.SnapshotFailed, 48,
    ),
}  # fmt: skip
NOT_OF_THE_CONF: dict[str, tuple[Change, str, type[DriverError], int]] = {
    "updateVmPolicy": (
        lambda c: c.tuning.update_policy(params(vcpuLimit=50)), "set_metadata", errors.PolicyFailed, 63,
    ),
    "vmSetCpuTuneQuota": (lambda c: c.tuning.set_cpu_quota(VM, 9), "set_cpu_time", errors.CpuTuneFailed, 62),
    "vmSetCpuTunePeriod": (lambda c: c.tuning.set_cpu_period(VM, 9), "set_cpu_time", errors.CpuTuneFailed, 62),
    "getIoTune": (lambda c: c.tuning.io(VM), "io_limits", errors.IoTuneFailed, 64),
    "diskSizeExtend": (lambda c: c.drives.extend(VM, {"path": "/a"}, 10), "capacity", errors.ResizeFailed, 58),
    "freeze": (lambda c: c.snapshots.freeze(VM), "freeze", errors.FreezeFailed, 76),
    "thaw": (lambda c: c.snapshots.thaw(VM), "thaw", errors.ThawFailed, 77),
    "merge": (lambda c: c.merges.begin(VM, {"imageID": "i"}, "0", "a", 0, "j"), "commit", errors.MergeFailed, 52),
    "merge, older": (
        lambda c: c.pulls.begin(VM, [{"imageID": "i", "volumeID": "0"}]), "pull", errors.MergeFailed, 52,
    ),
    "diskReplicateStart": (
        lambda c: c.replicas.begin(VM, {"imageID": "i"}, {"path": "/t"}), "copy", errors.ReplicaFailed, 55,
    ),
}  # fmt: skip
ALL = CHANGES | NOT_OF_THE_CONF


def fails(error: DriverError) -> Callable[..., None]:
    def call(*args: Any, **how: Any) -> None:
        raise error

    return call


@pytest.mark.parametrize("name", ALL)
def test_a_refusal_has_its_code_and_changes_nothing(up: Stand, name: str) -> None:
    change, call, error, code = ALL[name]
    before = machine(up).conf
    up.libvirt.answers[call] = fails(Failed(action="it", reason="libvirt does not want to"))
    with pytest.raises(error) as caught:
        up.does(VM, lambda: change(up.driver.changes))
    assert code_of(caught.value) == code
    assert "libvirt does not want to" in str(caught.value)
    after = machine(up)
    assert (after.conf["devices"], after.conf["smp"]) == (before["devices"], before["smp"])
    assert (after.intended, after.jobs, after.frozen, up.unsafe()) == ({}, {}, False, None)


@pytest.mark.parametrize("name", ALL)
def test_one_that_is_not_there(up: Stand, name: str) -> None:
    change, _, error, _ = ALL[name]
    up.libvirt.end(VM)
    up.await_status(VM, "Down")
    with pytest.raises(NoSuchVm):
        up.does(VM, lambda: change(up.driver.changes))
    up.destroy(VM)
    with pytest.raises(NoSuchVm):
        up.does(VM, lambda: change(up.driver.changes))
    assert issubclass(error, errors.ChangeFailed)


@pytest.mark.parametrize("name", ALL)
def test_one_that_is_on_its_way(up: Stand, name: str) -> None:
    machine(up).status = Status.MIGRATION_SOURCE
    with pytest.raises(errors.MigrationInProgress) as caught:
        up.does(VM, lambda: ALL[name][0](up.driver.changes))
    assert code_of(caught.value) == 51


@pytest.mark.parametrize("name", ALL)
def test_one_that_waits_to_be_started(stand: Stand, name: str) -> None:
    stand.inside(stand.driver.settle)
    stand.create(VM, devices=DEVICES)
    with pytest.raises(ALL[name][2]):
        stand.does(VM, lambda: ALL[name][0](stand.driver.changes))


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_intended_is_written_down_first(up: Stand, name: str) -> None:
    change, call, _, _ = CHANGES[name]
    seen: list[tuple[Conf, Conf, str | None]] = []
    before = machine(up).conf
    up.libvirt.answers[call] = lambda *a, **h: seen.append((machine(up).conf, machine(up).intended, up.unsafe()))
    up.libvirt.answers["io_limits"] = {}
    up.does(VM, lambda: change(up.driver.changes))
    conf, intended, unsafe = seen[0]
    assert conf is before
    assert intended
    assert intended != before
    assert VM in (unsafe or "")
    assert machine(up).conf == intended
    assert (machine(up).intended, up.unsafe()) == ({}, None)


@pytest.mark.parametrize("error", [NotResponding(what="it", reason="stuck"), HypervisorDown(reason="gone")])
def test_what_nobody_saw_the_end_of_is_settled_before_the_next_change(up: Stand, error: DriverError) -> None:
    up.libvirt.answers["change_medium"] = fails(error)
    with pytest.raises(NotResponding):
        up.does(VM, lambda: up.driver.changes.drives.change_medium(VM, "cdrom", "/cd"))
    assert (drive(up, "hdc")["path"], machine(up).intended["cdrom"]) == ("", "/cd")
    up.libvirt.xmls[VM] = XML.format(disk="/a", cd="<source file='/cd'/>")
    up.does(VM, lambda: up.driver.changes.resources.set_cpus(VM, 2))
    assert (drive(up, "hdc")["path"], machine(up).conf["cdrom"], machine(up).conf["smp"]) == ("/cd", "/cd", "2")


@pytest.mark.parametrize(("cd", "path"), [("<source file='/cd'/>", "/cd"), ("", "")])
def test_a_crash_in_the_middle(build: Callable[..., Stand], up: Stand, cd: str, path: str) -> None:
    def crash(*args: Any) -> None:
        raise HypervisorDown(reason="nobody comes back from here")

    up.libvirt.answers["change_medium"] = crash
    with pytest.raises(HypervisorDown):
        up.does(VM, lambda: up.driver.changes.drives.change_medium(VM, "cdrom", "/cd"))
    up.stop()
    up.libvirt.xmls[VM] = XML.format(disk="/a", cd=cd)
    second = build(up.libvirt)
    until(lambda: second.driver.recovering == "" and not machine(second).intended, 60)
    second.calm()
    assert drive(second, "hdc")["path"] == path
    assert drive(second, "vda")["path"] == "/a"


def test_a_domain_that_is_gone_is_looked_at(up: Stand) -> None:
    up.libvirt.events_held = []
    up.libvirt.end(VM)
    up.libvirt.answers["set_cpus"] = fails(NoSuchVm())
    asked = len(up.libvirt.calls("observe"))
    with pytest.raises(NoSuchVm):
        up.does(VM, lambda: up.driver.changes.resources.set_cpus(VM, 2))
    until(lambda: len(up.libvirt.calls("observe")) > asked)
    up.libvirt.deliver()
    up.await_status(VM, "Down")


BAD: list[Change] = [
    lambda c: c.drives.change_medium(VM, "cdrom", "relative.iso"),
    lambda c: c.drives.change_medium(VM, "cdrom", {"imageID": "i", "volumeID": "v"}),
    lambda c: c.drives.hotplug(params(drive={"iface": "virtio"})),
    lambda c: c.drives.hotplug(params(drive={"path": "/b", "iface": "nonsense"})),
    lambda c: c.drives.hotplug(params(drive={"type": "interface", "path": "/b"})),
    lambda c: c.drives.hotplug(params(drive={"path": "/b\0"})),
    lambda c: c.drives.hotplug(params(drive="text")),
    lambda c: c.drives.hotplug(params(drive={})),
    lambda c: c.drives.hotunplug(params(drive={"path": "/other"})),
    lambda c: c.drives.extend(VM, {"path": "/other"}, 10),
    lambda c: c.nics.hotplug(params(nic={"macAddr": "nonsense"})),
    lambda c: c.nics.hotplug(params(nic={"macAddr": NIC["macAddr"].upper()})),
    lambda c: c.nics.hotunplug(params(nic={})),
    lambda c: c.nics.update(VM, {"deviceType": "interface", "alias": "net9"}),
    lambda c: c.nics.update(VM, {"deviceType": "interface", "alias": "net0", "network": 5}),
    lambda c: c.nics.update(VM, {"deviceType": "interface", "alias": "net0", "portMirroring": ["red"]}),
    lambda c: c.nics.update(VM, {"deviceType": "interface"}),
    lambda c: c.nics.update(VM, {"deviceType": "sound"}),
    lambda c: c.nics.update(VM, {"deviceType": "graphics", "graphicsType": "vnc"}),
    lambda c: c.nics.update(VM, {"deviceType": "graphics", "graphicsType": "vnc", "password": "p"}),
    lambda c: c.nics.update(VM, {}),
    lambda c: c.resources.hotplug_memory(params(memory={"size": "-5"})),
    lambda c: c.resources.hotplug_memory(params(memory={"node": 0})),
    lambda c: c.resources.set_cpus(VM, 0),
    lambda c: c.resources.set_balloon(VM, -1),
    lambda c: c.resources.set_balloon(VM, 65537),
    lambda c: c.tuning.set_io(VM, [{"name": "vda", "ioTune": {"read_iops_sec": 1}}, {"name": "vdz", "ioTune": {}}]),
    lambda c: c.tuning.set_io(VM, [{"name": "vda"}]),
    lambda c: c.tuning.set_io(VM, [{"name": "vda", "ioTune": {"read_iops_sec": "many"}}]),
    lambda c: c.tuning.update_policy(params(vcpuLimit="all")),
    lambda c: c.tuning.update_policy(params(ioTune="none")),
    lambda c: c.tuning.update_policy(params(ioTune=[{"name": "vda", "maximum": {}}])),
    lambda c: c.tuning.update_policy({}),
    lambda c: c.tuning.set_cpu_period(VM, -1),
    lambda c: c.snapshots.take(VM, [], "", frozen=False),
    lambda c: c.snapshots.take(VM, [{"imageID": "x", "path": "/b"}], "", frozen=False),
    lambda c: c.snapshots.take(VM, [{"imageID": "i"}], "", frozen=False),
    lambda c: c.snapshots.take(VM, [{"imageID": "i", "path": "/a"}], "", frozen=False),
    lambda c: c.snapshots.take(VM, [{"imageID": "i", "path": "/b"}] * 2, "", frozen=False),
    lambda c: c.snapshots.take(VM, [{"name": "hdc", "path": "/b"}], "", frozen=False),
    lambda c: c.snapshots.take(VM, [], "one,two", frozen=False),
    lambda c: c.snapshots.take(VM, [], "1,2,3,4,5,6", frozen=False),
    lambda c: c.merges.begin(VM, {"imageID": "x"}, "0", "a", 0, ""),
    lambda c: c.merges.begin(VM, {"imageID": "i"}, "a", "0", 0, ""),
    lambda c: c.merges.begin(VM, {"imageID": "i"}, "a", "a", 0, ""),
    lambda c: c.merges.begin(VM, {"imageID": "i"}, "0", "x", 0, ""),
    lambda c: c.merges.begin(VM, {"imageID": "i"}, "0", "a", -1, ""),
    lambda c: c.pulls.begin(VM, []),
    lambda c: c.pulls.begin(VM, [{"imageID": "i", "volumeID": "a"}]),
    lambda c: c.replicas.begin(VM, {"imageID": "x"}, {"path": "/t"}),
    lambda c: c.replicas.begin(VM, {"imageID": "i"}, {"path": "/a"}),
    lambda c: c.replicas.begin(VM, {"imageID": "i"}, {"imageID": "i"}),
    lambda c: c.replicas.end(VM, {"imageID": "i"}, {"path": "/t"}),
]


@pytest.mark.parametrize("change", BAD)
def test_bad_input_changes_nothing(up: Stand, change: Change) -> None:
    before, asked = machine(up).conf, len(up.libvirt.asked)
    with pytest.raises(DriverError) as caught:
        up.does(VM, lambda: change(up.driver.changes))
    assert isinstance(
        caught.value, errors.ChangeFailed | errors.ImageUnavailable | MissingParameter | NotBuilt | DriverError
    )
    assert machine(up).conf is before
    assert {name for name, _ in up.libvirt.asked[asked:]} <= {"chain", "job", "capacity", "xml", "observe"}


def test_limits_are_set_on_all_disks_or_on_none(up: Stand) -> None:
    up.does(VM, lambda: up.driver.changes.drives.hotplug(params(drive={"path": "/b", "iface": "virtio"})))
    given: list[tuple[str, Conf]] = []

    def limit(disk: str, limits: Conf) -> None:
        given.append((disk, limits))
        if disk == "vdb":
            raise Failed(action="limiting", reason="no")

    up.libvirt.answers |= {"io_limits": {"before": 1}, "set_io_limits": limit}
    tunables = [{"name": name, "ioTune": {"read_iops_sec": 5}} for name in ("vda", "vdb")]
    with pytest.raises(errors.IoTuneFailed):
        up.does(VM, lambda: up.driver.changes.tuning.set_io(VM, tunables))
    assert [disk for disk, _ in given] == ["vda", "vdb", "vda"]
    assert given[-1][1] == {"before": 1}


def test_a_guest_that_does_not_let_go(up: Stand) -> None:
    up.libvirt.answers["has"] = True
    with pytest.raises(errors.HotunplugDiskFailed, match="does not let go"):
        up.does(VM, lambda: up.driver.changes.drives.hotunplug(params(drive={"path": "/a"})))
    assert drive(up, "vda")
    up.inside(lambda: up.driver._watch.heard(VM, "unplugged", "net0"))  # and lets go later
    assert not [device for device in machine(up).conf["devices"] if device["type"] == "interface"]


# Snapshots


def snapshot(stand: Stand) -> bool:
    taken: list[bool] = []
    said = [{"imageID": "i", "baseVolumeID": "a", "volumeID": "b", "path": "/b"}]
    stand.does(VM, lambda: taken.append(stand.driver.changes.snapshots.take(VM, said, "", frozen=False)))
    return taken[0]


def test_a_snapshot_is_taken_of_a_guest_at_rest(up: Stand) -> None:
    assert snapshot(up)
    calls = [name for name, _ in up.libvirt.asked if name in ("freeze", "snapshot", "thaw")]
    assert calls == ["freeze", "snapshot", "thaw"]
    assert (drive(up, "vda")["path"], drive(up, "vda")["volumeID"], drive(up, "vda")["format"]) == ("/b", "b", "cow")
    assert machine(up).frozen is False


def test_a_guest_without_an_agent_has_its_snapshot_all_the_same(up: Stand) -> None:
    up.libvirt.answers["freeze"] = fails(NotResponding(what="the agent", reason="not connected"))
    assert not snapshot(up)
    assert (drive(up, "vda")["path"], machine(up).frozen, up.libvirt.calls("thaw")) == ("/b", False, [])


def test_a_guest_is_thawed_when_its_snapshot_fails(up: Stand) -> None:
    up.libvirt.answers["snapshot"] = fails(Failed(action="it", reason="no"))
    with pytest.raises(errors.SnapshotFailed):
        snapshot(up)
    assert (up.libvirt.calls("thaw"), machine(up).frozen) == ([VM], False)


def test_a_guest_that_a_crash_left_frozen_is_thawed(build: Callable[..., Stand], up: Stand) -> None:
    up.libvirt.answers["thaw"] = fails(NotResponding(what="the agent", reason="stuck"))
    assert snapshot(up)
    assert machine(up).frozen
    up.stop()
    del up.libvirt.answers["thaw"]
    second = build(up.libvirt)
    until(lambda: not machine(second).frozen, 60)


def test_a_transient_disk_has_none(up: Stand) -> None:
    conf = machine(up).conf
    devices = [{**device, "shared": "transient"} if device["type"] == "disk" else device for device in conf["devices"]]
    up.driver._machines.update(machine(up), conf={**conf, "devices": devices})
    for change in ("snapshot", "diskReplicateStart"):
        with pytest.raises(errors.TransientDisk) as caught:
            up.does(VM, lambda change=change: ALL[change][0](up.driver.changes))  # type: ignore[misc]
        assert code_of(caught.value) == 59


# Jobs


class Images:
    """Data named by ids, and what was said of it."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, bool]] = []

    def prepare(self, said: Conf) -> str:
        return str(said.get("path") or f"/{said['volumeID']}")

    def mark(self, disk: Conf, volume: str, *, legal: bool) -> None:
        self.marks.append((volume, legal))

    def release(self, disk: Conf) -> None:
        """Nothing was made for it."""


def running(cur: int = 1, end: int = 2, *, ready: bool = False) -> JobSeen:
    return JobSeen(cur=cur, end=end, bandwidth=0, ready=ready)


def jobs(stand: Stand) -> Conf:
    shown: Conf = stand.stats(VM)["vmJobs"]
    return shown


def merge(stand: Stand, job_id: str = "j") -> None:
    stand.libvirt.answers["job"] = running()
    stand.does(VM, lambda: stand.driver.changes.merges.begin(VM, {"imageID": "i"}, "0", "a", 7, job_id))


def test_a_merge_moves_the_disk_in_the_end(up: Stand) -> None:
    up.driver.images = images = Images()
    merge(up)
    until(lambda: jobs(up)["j"]["cur"] == "1", 60)
    assert jobs(up) == {
        "j": {
            "id": "j",
            "jobType": "block",
            "blockJobType": "commit",
            "bandwidth": 0,
            "cur": "1",
            "end": "2",
            "imgUUID": "i",
        }
    }
    assert up.unsafe() is None  # QEMU goes on without us

    def pivot(disk: str) -> None:
        assert (machine(up).jobs["j"].step, images.marks) == (Step.PIVOT, [("a", False)])
        up.libvirt.answers |= {"chain": ["/0"], "leaf": ("/0", "raw"), "job": None}

    up.libvirt.answers |= {"job": running(2, 2, ready=True), "pivot": pivot}
    until(lambda: not jobs(up), 60)
    disk = drive(up, "vda")
    assert (disk["path"], disk["volumeID"], disk["format"], images.marks) == ("/0", "0", "raw", [("a", False)])


def test_a_leaf_that_could_not_be_left_is_legal_again(up: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.vm.changes.jobs.RETRY", 0.0)
    up.driver.images = images = Images()
    merge(up)
    failures = [Failed(action="pivoting", reason="no")]

    def pivot(disk: str) -> None:
        if failures:
            raise failures.pop()
        up.libvirt.answers |= {"chain": ["/0"], "leaf": ("/0", "raw"), "job": None}

    up.libvirt.answers |= {"job": running(2, 2, ready=True), "pivot": pivot}
    until(lambda: not jobs(up), 60)
    assert images.marks == [("a", False), ("a", True), ("a", False)]


def test_a_merge_that_fails_is_told(up: Stand) -> None:
    merge(up)
    up.libvirt.answers["job"] = None
    until(lambda: not jobs(up), 60)
    assert drive(up, "vda")["path"] == "/a"
    told = [fields["state"] for name, fields in up.events if name == "vm.job"]
    assert told == ["begun", "failed"]


def test_one_job_at_a_time(up: Stand) -> None:
    merge(up)
    for change in ("merge", "merge, older", "diskReplicateStart"):
        with pytest.raises(ALL[change][2]):
            up.does(VM, lambda change=change: ALL[change][0](up.driver.changes))  # type: ignore[misc]


STEPS = {
    "begun, but not in fact": (Step.BEGIN, None, CHAIN, "/a", "failed", [], False),
    "begun": (Step.BEGIN, running(), CHAIN, "/a", "", [], True),
    "running": (Step.RUN, running(), CHAIN, "/a", "", [], True),
    "pivoted unseen": (Step.PIVOT, None, ["/0"], "/0", "done", [], False),
    "failed to pivot unseen": (Step.PIVOT, None, CHAIN, "/a", "failed", [("a", True)], False),
}


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "exec"])
@pytest.mark.parametrize("case", STEPS.values(), ids=list(STEPS))
def test_a_merge_is_taken_up_at_its_step(build: Callable[..., Stand], up: Stand, case: Any, crash: bool) -> None:
    step, seen, chain, path, told, marks, stays = case
    job = BlockJob(job_id="j", kind="commit", disk="vda", image="i", base="/0", top="/a", active=True, step=step)
    up.driver._machines.update(machine(up), jobs={"j": job})
    up.libvirt.answers |= {"job": seen, "chain": chain, "leaf": (chain[-1], "raw")}
    left = up.stop()
    asked = len(up.libvirt.calls("job"))
    second = build(up.libvirt, settle=True) if crash else build(up.libvirt, left=left, settle=True)
    second.driver.images = images = Images()
    second.inside(second.driver.resume)
    until(lambda: len(up.libvirt.calls("job")) > asked, 60)
    second.calm()
    assert bool(jobs(second)) is stays
    assert (drive(second, "vda")["path"], images.marks) == (path, marks)
    assert [fields["state"] for name, fields in second.events if name == "vm.job"] == [told] * bool(told)
    if stays:
        assert machine(second).jobs["j"].step is Step.RUN


def test_a_job_that_cannot_be_seen_is_not_taken_for_ended(up: Stand) -> None:
    merge(up)
    up.libvirt.answers["job"] = fails(NotResponding(what="it", reason="stuck"))
    asked = len(up.libvirt.calls("job"))
    until(lambda: len(up.libvirt.calls("job")) > asked + 1, 60)
    assert "j" in jobs(up)


def test_jobs_end_with_their_machine(up: Stand) -> None:
    merge(up)
    up.libvirt.end(VM)
    up.await_status(VM, "Down")
    assert machine(up).jobs == {}


def test_jobs_are_left_alone_while_a_reexec_is_wanted(up: Stand) -> None:
    up.inside(up.driver.settle)
    merge(up)
    asked = len(up.libvirt.calls("job"))
    up.inside(lambda: up.driver.changes.jobs._tick())
    up.calm()
    assert len(up.libvirt.calls("job")) == asked
    up.inside(up.driver.resume)
    until(lambda: len(up.libvirt.calls("job")) > asked, 60)


def test_an_older_merge_has_a_status(up: Stand) -> None:
    up.libvirt.answers["job"] = running()
    up.does(VM, lambda: up.driver.changes.pulls.begin(VM, [{"imageID": "i", "volumeID": "0"}]))
    status = up.driver.changes.pulls.status(VM)
    assert status == [{"domainID": "d", "imageID": "i", "volumeID": "0"}]
    up.libvirt.answers["job"] = None
    until(lambda: up.driver.changes.pulls.status(VM) == [], 60)
    assert [fields["state"] for name, fields in up.events if name == "vm.job"] == ["begun", "done"]


# Replicas

TARGET = {"path": "/t", "format": "cow", "imageID": "i", "volumeID": "t", "domainID": "e"}


def replicate(stand: Stand) -> None:
    stand.libvirt.answers["job"] = running()
    stand.does(VM, lambda: stand.driver.changes.replicas.begin(VM, {"imageID": "i"}, TARGET))


def finish(stand: Stand, target: Conf) -> None:
    stand.does(VM, lambda: stand.driver.changes.replicas.end(VM, {"imageID": "i"}, target))


def test_a_replica_takes_the_place_of_its_disk(up: Stand) -> None:
    replicate(up)
    assert jobs(up) == {}
    with pytest.raises(errors.NotReady) as caught:
        finish(up, TARGET)
    assert code_of(caught.value) == 40
    up.libvirt.answers["job"] = running(2, 2, ready=True)
    finish(up, TARGET)
    disk = drive(up, "vda")
    assert {key: disk[key] for key in TARGET} == TARGET
    with pytest.raises(errors.ReplicaFailed):
        finish(up, TARGET)


@pytest.mark.parametrize("where", [{"imageID": "i"}, {"path": "/a"}, {**DISK}])
def test_a_disk_can_stay_where_it_is(up: Stand, where: Conf) -> None:
    replicate(up)
    finish(up, where)
    assert (up.libvirt.calls("abort"), up.libvirt.calls("pivot"), machine(up).jobs) == ([VM], [], {})
    assert drive(up, "vda")["path"] == "/a"


def test_a_pivot_that_fails(up: Stand) -> None:
    replicate(up)
    up.libvirt.answers |= {"job": running(2, 2, ready=True), "pivot": fails(Failed(action="it", reason="no"))}
    with pytest.raises(errors.ChangeDiskFailed):
        finish(up, TARGET)
    assert drive(up, "vda")["path"] == "/a"
    del up.libvirt.answers["pivot"]
    finish(up, TARGET)
    assert drive(up, "vda")["path"] == "/t"


def test_a_replication_to_another_place(up: Stand) -> None:
    replicate(up)
    with pytest.raises(errors.ReplicaFailed, match="/t"):
        finish(up, {**TARGET, "path": "/u", "volumeID": "u"})


def test_a_replication_that_failed_by_itself(up: Stand) -> None:
    replicate(up)
    up.libvirt.answers |= {"job": None, "leaf": ("/a", "raw")}
    with pytest.raises(errors.ReplicaFailed):
        finish(up, TARGET)
    assert machine(up).jobs == {}


@pytest.mark.parametrize("path", ["/a", "/t"])
def test_a_crash_in_the_middle_of_a_pivot(build: Callable[..., Stand], up: Stand, path: str) -> None:
    replicate(up)
    up.inside(up.driver.settle)  # nobody looks at jobs
    up.calm()
    up.libvirt.answers |= {"job": running(2, 2, ready=True), "pivot": fails(HypervisorDown(reason="crashed"))}
    with pytest.raises(HypervisorDown):
        finish(up, TARGET)
    assert machine(up).intended
    up.stop()
    up.libvirt.xmls[VM] = XML.format(disk=path, cd="")
    up.libvirt.answers |= {"job": None, "leaf": (path, "cow")}
    second = build(up.libvirt)
    until(lambda: not machine(second).intended and not machine(second).jobs, 60)
    assert drive(second, "vda")["path"] == path
    assert drive(second, "vda")["volumeID"] == ("t" if path == "/t" else "a")


def test_policies_are_kept_and_shown(build: Callable[..., Stand], up: Stand) -> None:
    tuning = up.driver.changes.tuning
    entry = {"name": "vda", "guaranteed": {"read_iops_sec": "1"}, "maximum": {"read_iops_sec": 5000000000}}
    up.does(VM, lambda: tuning.update_policy(params(vcpuLimit="50", ioTune=[entry])))
    up.does(VM, lambda: tuning.set_cpu_quota(VM, 5000))
    up.does(VM, lambda: tuning.set_cpu_period(VM, 10000))
    second = build(up.libvirt, left=up.stop())
    second.await_status(VM, "Up")
    stats = second.stats(VM)
    assert (stats["vcpuUserLimit"], stats["vcpuQuota"], stats["vcpuPeriod"]) == ("50", "5000", "10000")
    policy: list[Conf] = []
    second.does(VM, lambda: policy.extend(second.driver.changes.tuning.io_policy(VM)))
    assert (policy[0]["name"], policy[0]["path"]) == ("vda", "/a")
    assert (policy[0]["guaranteed"]["read_iops_sec"], policy[0]["maximum"]["read_iops_sec"]) == (1, "5000000000")


def test_another_machine_is_not_touched(up: Stand) -> None:
    up.run(OTHER)
    before = up.driver._machines.get(OTHER).conf
    up.does(VM, lambda: up.driver.changes.resources.set_cpus(VM, 2))
    assert up.driver._machines.get(OTHER).conf is before
    assert up.status(VM) == "Up"
