"""Changes to real machines: what was changed stays changed, and what QEMU is still at is taken up, by whoever comes next."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.vm.machine import VmRecord
from state.records import Entry, decode, encode, pack, unpack
from tests.conftest import Guest
from tests.running import Running, Stage
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VM = "11111111-1111-4111-8111-111111111111"
JOB = "22222222-2222-4222-8222-222222222222"
MAC = "00:1a:4a:16:01:51"
PATIENCE = 240.0
MIB = 2**20
IDS = {"poolID": "pool", "domainID": "domain", "imageID": "image"}

Struct = dict[str, Any]
Start = Callable[..., Running]


class Place:
    """A daemon with one machine, and files for it."""

    def __init__(self, stage: Stage, **options: object) -> None:
        self.stage = stage
        self.daemon = stage.start(uri="embed", config={"vars": {"log_level": "WARNING", **options}})
        self.call = self.daemon.call
        self.must = self.daemon.must

    def image(self, name: str, size: int = 8 * MIB, *, form: str = "qcow2", filled: int = 0) -> str:
        """Make an image of that size, all of it filled with the byte `filled` unless that is 0."""
        path = str(self.stage.base / name)
        run("qemu-img", "create", "-q", "-f", form, path, str(size))
        if filled:
            run("qemu-io", "-f", form, "-c", f"write -P {filled} 0 {size}", path)
        return path

    def create(self, *devices: Struct, **more: Any) -> None:
        self.must("create", {"vmId": VM, "memSize": 64, "devices": list(devices), **more})
        until(lambda: self.stats()["status"] in ("Up", "Paused", "Down"), PATIENCE, "the machine to be started")
        assert self.stats()["status"] != "Down", self.stats()["exitMessage"]

    def stats(self) -> Struct:
        found: Struct = self.must("getVmStats", VM)["statsList"][0]
        return found

    def jobs(self) -> Struct:
        found: Struct = self.stats()["vmJobs"]
        return found

    def machine(self) -> Struct:
        found: Struct = self.must("list", True, [VM])["vmList"][0]
        return found

    def device(self, **said: str) -> Struct:
        """Return the one device that this is true of."""
        fitting = [d for d in self.machine()["devices"] if all(d.get(key) == value for key, value in said.items())]
        assert len(fitting) == 1
        return dict(fitting[0])

    def kinds(self) -> list[str]:
        return [device["type"] for device in self.machine()["devices"]]

    def crash(self) -> None:
        """Kill the daemon, and start it again."""
        self.daemon.kill()
        self.restart()

    def restart(self) -> None:
        options = self.daemon.config.read_text(encoding="utf-8")
        self.daemon = self.stage.start(uri="embed", again=self.daemon, wait=False)
        self.daemon.config.write_text(options, encoding="utf-8")
        self.daemon.serving()
        self.call, self.must = self.daemon.call, self.daemon.must
        until(lambda: self.call("getVmStats", VM)["status"]["code"] == 0, PATIENCE, "machines to be recovered")

    def code(self, verb: str, *arguments: Any) -> int:
        return int(self.call(verb, *arguments)["status"]["code"])


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def put_on(path: str, below: str) -> str:
    """Have the image lie on another one, which may be a guest's, without looking at that. Returns its name."""
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", path)
    return Path(path).name


def disk(path: str, **more: Any) -> Struct:
    return {"type": "disk", "device": "disk", "iface": "scsi", "path": path, "format": "cow", **more}


CD = {"type": "disk", "device": "cdrom", "iface": "ide", "path": ""}
FLOPPY = {"type": "disk", "device": "floppy", "path": ""}
BALLOON = {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}}
ROOM = {"smp": 1, "maxVCpus": 4, "maxMemSize": 512, "guestNumaNodes": [{"cpus": "0-3", "memory": "64"}]}


def test_what_was_changed_stays_changed(stage: Stage) -> None:
    place = Place(stage)
    first, second, cd = place.image("first"), place.image("second"), place.image("cd", MIB, form="raw")
    vnc = {"type": "graphics", "device": "vnc"}
    place.create(disk(first), CD, FLOPPY, BALLOON, vnc, launchPaused="true", **ROOM)

    shown = place.must("changeCD", VM, cd)["vmList"]
    assert (shown["vmId"], shown["cdrom"], shown["status"]) == (VM, cd, "Paused")
    assert place.code("changeCD", VM, "/nowhere") == 13
    assert place.code("changeCD", VM, "relative") == 13
    place.must("changeFloppy", VM, {"path": place.image("floppy", MIB, form="raw")})

    place.must("hotplugDisk", {"vmId": VM, "drive": disk(second)})
    assert place.code("hotplugDisk", {"vmId": VM, "drive": disk("/nowhere")}) == 45
    assert place.code("hotplugDisk", {"vmId": VM}) == 11
    place.must("hotunplugDisk", {"vmId": VM, "drive": {"path": second}})
    assert place.code("hotunplugDisk", {"vmId": VM, "drive": {"path": second}}) == 46
    place.must("hotplugDisk", {"vmId": VM, "drive": disk(second)})
    assert place.must("diskSizeExtend", VM, {"path": second}, str(16 * MIB))["size"] == str(16 * MIB)
    assert place.code("diskSizeExtend", VM, {"path": second}, str(MIB)) == 58
    assert place.code("diskSizeExtend", VM, {"path": "/nowhere"}, str(MIB)) == 13

    place.must(
        "hotplugNic", {"vmId": VM, "nic": {"type": "interface", "device": "user", "macAddr": MAC, "nicModel": "pv"}}
    )
    assert place.code("hotplugNic", {"vmId": VM, "nic": {"device": "user", "macAddr": MAC}}) == 49
    nic = place.device(type="interface")
    update = {"deviceType": "interface", "alias": nic["alias"], "linkActive": False}
    assert place.must("vmUpdateDevice", VM, update)["vmList"]["devices"][0]["linkActive"] is False
    ticket = {"deviceType": "graphics", "graphicsType": "vnc", "password": "p", "ttl": 60, "existingConnAction": "keep"}
    assert "vmList" not in place.must("vmUpdateDevice", VM, ticket)
    assert place.code("vmUpdateDevice", VM, {**ticket, "graphicsType": "spice"}) == 56

    assert place.must("setNumberOfCpus", VM, 3)["vmList"]["smp"] == "3"
    assert place.code("setNumberOfCpus", VM, 5) == 60
    module = {"type": "memory", "device": "memory", "size": 128, "node": 0}
    assert place.must("hotplugMemory", {"vmId": VM, "memory": module})["vmList"]["memSize"] == 192
    assert place.code("hotplugMemory", {"vmId": VM, "memory": {**module, "size": 4096}}) == 70
    place.must("setBalloonTarget", VM, str(40 << 10))
    assert place.code("setBalloonTarget", VM, 500 << 10) == 53

    place.must("setIoTune", VM, [{"path": first, "ioTune": {"total_bytes_sec": "5000000000"}}])
    both = {"total_bytes_sec": 1, "read_bytes_sec": 1}
    assert place.code("setIoTune", VM, [{"path": first, "ioTune": both}]) == 64
    limited = {entry["path"]: entry["ioTune"]["total_bytes_sec"] for entry in place.must("getIoTune", VM)["ioTune"]}
    assert limited == {first: "5000000000", second: 0}
    policy = {"path": first, "guaranteed": {"read_iops_sec": 1}, "maximum": {"read_iops_sec": 2}}
    place.must("updateVmPolicy", {"vmId": VM, "vcpuLimit": 50, "ioTune": [policy]})
    # Whether processor time can be limited depends on the host's control groups.
    assert place.code("vmSetCpuTuneQuota", VM, 50000) in (0, 62)
    assert place.code("vmSetCpuTunePeriod", VM, 100000) in (0, 62)

    facts = seen(place)
    assert facts["kinds"].count("disk") == 4
    assert facts["cd"] == cd
    place.daemon.reexec()
    assert seen(place) == facts
    place.crash()
    assert seen(place) == facts
    assert place.must("changeCD", VM, "")["vmList"]["cdrom"] == ""
    place.must("destroy", VM)


def seen(place: Place) -> Struct:
    stats = place.stats()
    kept = ("vcpuQuota", "vcpuPeriod", "vcpuUserLimit", "ioTune")
    return {
        "devices": place.machine()["devices"],
        "kinds": place.kinds(),
        "cd": place.machine()["cdrom"],
        "smp": place.machine()["smp"],
        "memory": place.machine()["memSize"],
        "target": stats["balloonInfo"]["balloon_target"],
        "policy": place.must("getIoTunePolicy", VM)["ioTunePolicy"],
        **{key: stats[key] for key in kept},
    }


def test_a_crash_between_a_change_and_its_record(stage: Stage) -> None:
    """The checkpoint is put back to what it was just before libvirt answered: the domain knows better."""
    place = Place(stage)
    cd = place.image("cd", MIB, form="raw")
    place.create(CD, launchPaused="true", **ROOM)
    before = place.machine()
    place.must("changeCD", VM, cd)
    place.must("hotplugDisk", {"vmId": VM, "drive": disk(place.image("hot"))})
    place.must("setNumberOfCpus", VM, 2)
    place.daemon.kill()
    undo(place, before["devices"], {"cdrom": "", "smp": 1})
    place.restart()
    until(lambda: place.machine()["cdrom"] == cd, PATIENCE, "the change to be settled")
    assert place.machine()["smp"] == "2"
    assert place.device(name="hdc")["path"] == cd
    assert place.device(name="sda")["alias"]
    place.must("setNumberOfCpus", VM, 3)


def undo(place: Place, devices: list[Struct], more: Struct) -> None:
    [path] = place.daemon.run_dir.rglob(f"vm/{VM}")
    record = decode(VmRecord, unpack(Entry, path.read_bytes(), VM), VM)
    [machine] = record.machines
    machine.intended = machine.conf
    machine.conf = {**machine.conf, "devices": devices, **more}
    path.write_bytes(pack(encode(record)))


def test_snapshots_and_merges(stage: Stage) -> None:
    place = Place(stage)
    size = 4 * MIB
    base = layer = place.image("base", size, filled=1)
    above = [place.image(name, size) for name in ("one", "two", "three")]
    for byte, path in ((2, above[0]), (3, above[1])):
        # What a guest would write is written into the layer before it becomes the guest's.
        run("qemu-io", "-c", f"write -P {byte} {byte * MIB} {MIB}", path)
    place.create(disk(base, **IDS, volumeID="base"))
    for path in above:
        name = put_on(path, layer)
        said = {**IDS, "baseVolumeID": Path(layer).name, "volumeID": name, "path": path}
        assert place.must("snapshot", VM, [said])["quiesce"] is False
        layer = path
    assert place.code("snapshot", VM, [{**IDS, "baseVolumeID": "base", "volumeID": "x", "path": "/x"}]) == 48
    assert place.code("freeze", VM) == 19
    assert place.code("thaw", VM) == 19
    drive = place.device(name="sda")
    assert (drive["volumeID"], drive["path"]) == ("three", layer)
    assert [entry["volumeID"] for entry in drive["volumeChain"]] == ["base", "one", "two", "three"]

    three = {**IDS, "volumeID": "three"}
    assert place.code("merge", VM, three, "two", "one") == 52
    assert place.code("merge", VM, {**IDS, "imageID": "other"}, "one", "two") == 13
    place.must("merge", VM, three, "one", "two", 0, JOB)
    until(lambda: not place.jobs(), PATIENCE, "the merge of inner layers")
    assert [entry["volumeID"] for entry in place.device(name="sda")["volumeChain"]] == ["base", "one", "three"]
    place.must("merge", VM, three, "base", "three")
    until(lambda: not place.jobs(), PATIENCE, "the merge of the leaf")
    drive = place.device(name="sda")
    assert (drive["volumeID"], drive["path"], len(drive["volumeChain"])) == ("base", base, 1)
    place.must("destroy", VM)
    run("qemu-io", "-r", "-c", f"read -P 1 0 {MIB}", "-c", f"read -P 2 {2 * MIB} {MIB}", base)
    assert "Pattern" not in run("qemu-io", "-r", "-c", f"read -P 3 {3 * MIB} {MIB}", base)


def test_a_snapshot_with_memory_and_an_older_merge(stage: Stage) -> None:
    place = Place(stage)
    base = place.image("base", filled=1)
    place.create(disk(base, imageID="image", volumeID="base"))
    top, last = place.image("top"), place.image("last")
    put_on(top, base)
    memory = stage.base / "memory"
    said = {"imageID": "image", "baseVolumeID": "base", "volumeID": "top", "path": top}
    place.must("snapshot", VM, [said], str(memory))
    assert memory.stat().st_size > 64 << 10
    assert place.stats()["status"] == "Up"
    put_on(last, top)
    place.must("snapshot", VM, [{"name": "sda", "volumeID": "last", "path": last}])
    place.must("merge", VM, [{"imageID": "image", "volumeID": "base"}])
    until(lambda: not place.must("mergeStatus", VM)["mergeStatus"], PATIENCE)
    assert [entry["path"] for entry in place.device(name="sda")["volumeChain"]] == [base, last]


LONG = 128 * MIB
"""So much takes minutes at the speed that it is given."""


def test_a_merge_goes_on_over_an_exec_and_a_crash(stage: Stage) -> None:
    place = Place(stage)
    base, top = place.image("base", LONG), place.image("top", LONG, filled=2)
    put_on(top, base)
    place.create(disk(base, **IDS, volumeID="base"), launchPaused="true")
    place.must("snapshot", VM, [{**IDS, "baseVolumeID": "base", "volumeID": "top", "path": top}])
    place.must("merge", VM, {**IDS, "volumeID": "top"}, "base", "top", 1, JOB)
    until(lambda: int(place.jobs()[JOB]["cur"]) > 0, PATIENCE, "the merge to have begun")
    seen = int(place.jobs()[JOB]["cur"])
    place.daemon.reexec()
    assert place.jobs()[JOB]["blockJobType"] == "commit"
    assert int(place.jobs()[JOB]["cur"]) >= seen
    place.crash()
    assert place.jobs()[JOB]["imgUUID"] == "image"
    grows(place)
    assert place.device(name="sda")["path"] == top
    assert place.code("merge", VM, {**IDS, "volumeID": "top"}, "base", "top", 1, JOB) == 52
    place.must("destroy", VM)


def grows(place: Place) -> None:
    seen = int(place.jobs()[JOB]["cur"])
    until(lambda: int(place.jobs()[JOB]["cur"]) > seen, PATIENCE, "the job to go on")


def test_a_merge_ends_well_whatever_happens_to_us(stage: Stage) -> None:
    place = Place(stage)
    size = 8 * MIB
    base, top = place.image("base", size), place.image("top", size, filled=2)
    put_on(top, base)
    place.create(disk(base, **IDS, volumeID="base"), launchPaused="true")
    place.must("snapshot", VM, [{**IDS, "baseVolumeID": "base", "volumeID": "top", "path": top}])
    place.must("merge", VM, {**IDS, "volumeID": "top"}, "base", "top", 1, JOB)
    place.daemon.reexec()
    place.crash()
    until(lambda: not place.jobs(), PATIENCE, "the merge to end")
    assert (place.device(name="sda")["path"], place.device(name="sda")["volumeID"]) == (base, "base")
    place.must("destroy", VM)
    assert "Pattern" not in run("qemu-io", "-r", "-c", f"read -P 2 0 {size}", base)


def test_a_replication_goes_on_over_an_exec_and_a_crash(stage: Stage) -> None:
    place = Place(stage, replication_bandwidth=1)
    source, target = place.image("source", LONG, filled=2), place.image("target", LONG)
    place.create(disk(source, **IDS, volumeID="source"), launchPaused="true")
    here, there = {**IDS, "volumeID": "source"}, {**IDS, "domainID": "other", "volumeID": "target", "path": target}
    assert place.code("diskReplicateFinish", VM, here, there) == 55
    place.must("diskReplicateStart", VM, here, there)
    assert place.code("diskReplicateStart", VM, here, there) == 55
    assert place.code("diskReplicateFinish", VM, here, there) == 40
    place.daemon.reexec()
    assert place.code("diskReplicateFinish", VM, here, there) == 40
    place.crash()
    assert place.code("diskReplicateFinish", VM, here, there) == 40
    place.must("diskReplicateFinish", VM, here, here)
    assert place.device(name="sda")["path"] == source

    options = place.daemon.config.read_text(encoding="utf-8")
    place.daemon.config.write_text(options.replace("replication_bandwidth = 1", "replication_bandwidth = 0"))
    place.daemon.reexec()
    place.must("diskReplicateStart", VM, here, there)
    place.crash()
    until(lambda: place.code("diskReplicateFinish", VM, here, there) == 0, PATIENCE, "the disk to move")
    moved = place.device(name="sda")
    assert (moved["path"], moved["domainID"], moved["volumeID"]) == (target, "other", "target")
    place.daemon.reexec()
    assert place.device(name="sda") == moved
    place.must("destroy", VM)
    assert "Pattern" not in run("qemu-io", "-r", "-c", f"read -P 2 0 {LONG}", target)


def test_a_guest_lets_go_of_a_nic_in_its_own_time(stage: Stage, guest: Guest) -> None:
    place = Place(stage, hotunplug_timeout=1)
    place.create(memSize=96, kernel=guest.kernel, initrd=guest.initramfs, kernelArgs="console=ttyS0 quiet")
    console = place.daemon.console(VM)
    until(lambda: console.exists() and b"tick 1\r\n" in console.read_bytes(), PATIENCE, "the guest to count")
    place.must("hotplugNic", {"vmId": VM, "nic": {"device": "user", "nicModel": "pv", "macAddr": MAC}})
    assert place.kinds().count("interface") == 1
    place.must("pause", VM)
    assert place.code("hotunplugNic", {"vmId": VM, "nic": {"macAddr": MAC}}) == 50
    assert place.kinds().count("interface") == 1
    place.must("cont", VM)
    until(lambda: "interface" not in place.kinds(), PATIENCE, "the guest to let go of it")
    assert place.code("hotunplugNic", {"vmId": VM, "nic": {"macAddr": MAC}}) == 50
