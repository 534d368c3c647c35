"""Machines of every kind under a real QEMU: what was asked for is there, is shown as engines read it, and goes with them."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.network.namespace import inside, ip, nics
from tests.running import PATIENCE, Running, Stage, runs
from tests.until import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Start = Callable[..., Running]
MACS = [f"00:1a:4a:16:01:5{number}" for number in range(6)]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make networks")


def machine(*devices: dict[str, Any], **params: Any) -> dict[str, Any]:
    vm_id = str(uuid.uuid4())
    return {
        "vmId": vm_id,
        "vmName": vm_id[:8],
        "memSize": 64,
        "launchPaused": True,
        "kvmEnable": False,
        "devices": list(devices),
        **params,
    }


def created(daemon: Running, params: dict[str, Any]) -> str:
    """Create a machine that is paused from its start, and wait until it is there."""
    vm_id = str(params["vmId"])
    daemon.must("create", params)
    until(lambda: stats(daemon, vm_id)["status"] in ("Paused", "Down"), PATIENCE, "the machine to have been started")
    assert stats(daemon, vm_id)["status"] == "Paused", stats(daemon, vm_id)
    return vm_id


def stats(daemon: Running, vm_id: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.must("getVmStats", vm_id)["statsList"][0]
    return found


def shown(daemon: Running, vm_id: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.must("list", True, [vm_id])["vmList"][0]
    return found


def of_kind(daemon: Running, vm_id: str, kind: str) -> list[dict[str, Any]]:
    return [device for device in shown(daemon, vm_id)["devices"] if device["type"] == kind]


def nic(mac: str, network: str = "br0", **more: Any) -> dict[str, Any]:
    return {"type": "interface", "device": "bridge", "macAddr": mac, "nicModel": "pv", "network": network, **more}


def payload(kind: str, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    said = {"file": {name: base64.b64encode(content).decode()}, "volId": "config-2"}
    return {"type": "disk", "device": kind, "specParams": {"vmPayload": said}, **more}


def raw_disk(base: Path, name: str, **more: Any) -> dict[str, Any]:
    path = base / name
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return {"type": "disk", "device": "disk", "format": "raw", "path": str(path), **more}


def everything(base: Path) -> list[dict[str, Any]]:
    """As many devices as QEMU emulates without anything special on the host."""
    base.chmod(0o777)
    return [
        raw_disk(base, "virtio.img", iface="virtio", bootOrder=2, specParams={"ioTune": {"total_iops_sec": 500}}),
        raw_disk(base, "scsi.img", iface="scsi", serial="S-1", specParams={"ioTune": {"read_bytes_sec": "1000000"}}),
        raw_disk(base, "ide.img", iface="ide", index=0, readonly="false"),
        raw_disk(base, "sata.img", iface="sata", index=4),
        raw_disk(base, "usb.img", iface="usb", index=5),
        raw_disk(base, "shared.img", iface="virtio", shared="shared"),
        raw_disk(base, "transient.img", iface="virtio", shared="transient"),
        raw_disk(base, "boot.iso") | {"device": "cdrom", "iface": "ide", "readonly": "true", "bootOrder": 1},
        payload("cdrom", "openstack/latest/user_data", b"#cloud-config\n", iface="ide"),
        payload("floppy", "answers.txt", b"yes"),
        nic(MACS[0], network="", nicModel="e1000"),
        nic(MACS[1], network="", device="user", nicModel="pv"),
        {"type": "graphics", "device": "vnc", "specParams": {"keyMap": "de"}},
        {"type": "video", "device": "cirrus", "specParams": {}},
        {"type": "video", "device": "qxl", "specParams": {"vram": "32768", "heads": "1"}},
        {"type": "sound", "device": "ich6"},
        {"type": "sound", "device": "ac97"},
        {"type": "controller", "device": "usb", "index": 0, "model": "piix3-uhci"},
        {"type": "controller", "device": "scsi", "index": 0, "model": "virtio-scsi"},
        {"type": "controller", "device": "virtio-serial", "index": 0},
        {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}},
        {"type": "watchdog", "device": "watchdog", "specParams": {"model": "i6300esb", "action": "reset"}},
        {"type": "rng", "device": "virtio", "model": "virtio", "specParams": {"source": "urandom", "bytes": 1000}},
        {"type": "console", "device": "console", "specParams": {"consoleType": "virtio"}},
        {"type": "memory", "device": "memory", "size": 128, "node": 0},
    ]


def test_a_machine_with_everything(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon(uri="embed")
    devices = everything(stage.base)
    vm_id = created(
        vdsmd,
        machine(
            *devices,
            memSize=192,
            maxMemSize=1024,
            maxMemSlots=4,
            smp="2",
            maxVCpus="4",
            smpCoresPerSocket="2",
            guestNumaNodes=[{"cpus": "0-3", "memory": "64", "nodeIndex": 0}],
            numOfIoThreads="2",
            cpuPinning={"0": "0"},
            bootMenuEnable="true",
            tabletEnable="true",
            timeOffset="-3600",
            clientIp="192.0.2.7",
            custom={"colour": "red"},
            sysprepInf="[Unattended]",
            nice="0",
            transparentHugePages="true",
            keyboardLayout="de",
            spiceSecureChannels="smain",
            serial="machine-serial",
            memGuaranteedSize=64,
        ),
    )
    conf = shown(vdsmd, vm_id)
    assert (conf["clientIp"], conf["custom"], conf["status"]) == ("192.0.2.7", {"colour": "red"}, "Paused")
    mute = [d for d in conf["devices"] if not d.get("alias") and d["type"] != "graphics"]
    assert mute == []
    placed = [
        device for device in conf["devices"] if device["type"] in ("disk", "interface", "video", "balloon", "rng")
    ]
    assert all(device["address"]["type"] in ("pci", "drive", "usb") for device in placed)
    (display,) = of_kind(vdsmd, vm_id, "graphics")
    assert 5900 <= display["port"] == conf["displayPort"] and conf["displaySecurePort"] == -1
    told = stats(vdsmd, vm_id)
    assert told["displayInfo"] == [{"type": "vnc", "port": str(display["port"]), "tlsPort": "-1", "ipAddress": "0"}]
    disks = {disk["name"]: disk for disk in of_kind(vdsmd, vm_id, "disk")}
    assert set(told["disks"]) == set(disks)
    assert {"vda", "sda", "hda", "hdc", "hdd", "fda", "fdb"} <= set(disks)
    payloads = [disk for disk in disks.values() if (disk.get("specParams") or {}).get("vmPayload")]
    folder = vdsmd.run_dir / "payload"
    assert {Path(disk["path"]) for disk in payloads} == set(folder.iterdir()) and len(payloads) == 3
    opened = files_of(int(told["pid"]))
    assert {disk["path"] for disk in disks.values() if disk["path"]} <= opened
    assert b"#cloud-config" in Path(disks["hdd"]["path"]).read_bytes()
    vdsmd.reexec()
    assert shown(vdsmd, vm_id)["devices"] == conf["devices"]
    assert files_of(int(told["pid"])) == opened
    vdsmd.must("destroy", vm_id)
    assert list(folder.iterdir()) == [] and list((vdsmd.lib_dir / "transient").iterdir()) == []


def files_of(pid: int) -> set[str]:
    """Return the paths of the files that a process has open."""
    opened = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return {path for path in opened if path.startswith("/")}


def links(bridge: str = "") -> dict[str, dict[str, Any]]:
    """Return the taps there are (in a bridge), by name."""
    master = f" master {bridge}" if bridge else ""
    found = json.loads(ip(f"-j -d link show{master}"))
    return {link["ifname"]: link for link in found if link and link["ifname"].startswith("vd")}


def bridges() -> None:
    for name, mtu in (("br0", 1400), ("br1", 1500)):
        ip(f"link add {name} type bridge")
        ip(f"link set {name} mtu {mtu} up")


@as_root
def test_guests_of_an_ordinary_user_are_plugged_into_bridges(daemon: Start, stage: Stage) -> None:
    inside(lambda: plugged_into_bridges(daemon, stage))


def plugged_into_bridges(daemon: Start, stage: Stage) -> None:
    bridges()
    vdsmd = daemon(uri="embed", spawned=True, config={"vars": {"vm_sample_interval": 1}})
    vm_id = created(vdsmd, machine(nic(MACS[0]), nic(MACS[1], network=""), nic(MACS[2], nicModel="e1000")))
    names = [device["name"] for device in of_kind(vdsmd, vm_id, "interface")]
    taps = links("br0")
    assert set(taps) == {names[0], names[2]} == set(links())
    tap = taps[names[0]]
    assert (tap["address"], tap["mtu"], "LOWER_UP" in tap["flags"]) == ("fe:1a:4a:16:01:50", 1400, True)
    qemu = int(stats(vdsmd, vm_id)["pid"])
    assert os.stat(f"/proc/{qemu}").st_uid != 0 and tap["linkinfo"]["info_data"]["user"] == "vdsm"
    until(lambda: {names[0], names[2]} <= set(stats(vdsmd, vm_id)["network"]), PATIENCE, "traffic to be counted")
    assert stats(vdsmd, vm_id)["network"][names[0]]["macAddr"] == MACS[0]
    # Changes of a running machine.
    vdsmd.must("hotplugNic", {"vmId": vm_id, "nic": nic(MACS[3], network="br1")})
    (added,) = links("br1")
    alias = of_kind(vdsmd, vm_id, "interface")[0]["alias"]
    for network, there in (("br1", {added, names[0]}), ("", {added}), ("br1", {added, names[0]})):
        vdsmd.must("vmUpdateDevice", vm_id, {"deviceType": "interface", "alias": alias, "network": network})
        assert set(links("br1")) == there
    refused = vdsmd.call("hotplugNic", {"vmId": vm_id, "nic": nic(MACS[4], network="no-such-one")})
    assert refused["status"]["code"] == 49 and "no-such-one" in refused["status"]["message"]
    # A bridge that is not there.
    broken = machine(nic(MACS[5], network="no-such-one"))
    vdsmd.must("create", broken)
    until(lambda: stats(vdsmd, broken["vmId"])["status"] == "Down", PATIENCE, "the start to fail")
    assert "there is no such bridge" in stats(vdsmd, broken["vmId"])["exitMessage"]
    vdsmd.must("destroy", broken["vmId"])
    # The pair ends, and another takes over; QEMU ends with nobody there to see it.
    vdsmd.reexec()
    before = set(links())
    pid = vdsmd.pid
    vdsmd.kill()
    until(lambda: not runs(pid), PATIENCE, "the daemon to have ended, too")
    assert set(links()) == before
    os.kill(qemu, signal.SIGKILL)
    vdsmd = stage.start(uri="embed", again=vdsmd, spawned=True)
    until(lambda: stats(vdsmd, vm_id)["status"] == "Down", PATIENCE, "its end to be found out")
    until(lambda: not links(), PATIENCE, "its taps to be taken away")
    vdsmd.must("destroy", vm_id)


@as_root
def test_a_machine_that_is_destroyed_takes_its_taps_with_it(daemon: Start) -> None:
    def destroyed() -> None:
        bridges()
        vdsmd = daemon(uri="embed")
        vm_id = created(vdsmd, machine(nic(MACS[0])))
        assert len(links("br0")) == 1
        vdsmd.must("destroy", vm_id)
        assert links() == {}

    inside(destroyed)


DISPLAY_NET = {"nic": "em1", "bootproto": "none", "ipaddr": "192.0.2.10", "netmask": "255.255.255.0"}


def listeners(daemon: Running, port: int) -> set[str]:
    """Return the addresses of the daemon's host on which somebody listens on a port, as the kernel tells them."""
    lines = Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    return {end.partition(":")[0] for end in ends if int(end.partition(":")[2], 16) == port}


@as_root
def test_a_display_listens_on_its_network_alone(daemon: Start, stage: Stage) -> None:
    def listens() -> None:
        nics("em1")
        vdsmd = daemon(uri="embed")
        vdsmd.must("setupNetworks", {"display": DISPLAY_NET}, {}, {"connectivityCheck": False})
        vm_id = created(vdsmd, machine(display="vnc", displayNetwork="display"))
        told = stats(vdsmd, vm_id)
        port = int(told["displayPort"])
        assert told["displayInfo"] == [{"type": "vnc", "port": str(port), "tlsPort": "-1", "ipAddress": "192.0.2.10"}]
        assert told["displayIp"] == shown(vdsmd, vm_id)["displayIp"] == "192.0.2.10"
        assert listeners(vdsmd, port) == {"0A0200C0"}
        vdsmd.must("setVmTicket", vm_id, "secret", 60)
        vdsmd.reexec()
        assert stats(vdsmd, vm_id)["displayIp"] == "192.0.2.10"
        # To a file, and back when the network has another address.
        memory = stage.base / "memory"
        vdsmd.must("hibernate", vm_id, str(memory))
        until(lambda: stats(vdsmd, vm_id)["status"] == "Down", PATIENCE, "it to be saved")
        vdsmd.must("destroy", vm_id)
        moved = {**DISPLAY_NET, "ipaddr": "192.0.2.11"}
        vdsmd.must("setupNetworks", {"display": moved}, {}, {"connectivityCheck": False})
        again = machine(display="vnc", displayNetwork="display", vmId=vm_id, restoreState=str(memory))
        created(vdsmd, again)
        assert stats(vdsmd, vm_id)["displayIp"] == "192.0.2.11"
        assert listeners(vdsmd, int(stats(vdsmd, vm_id)["displayPort"])) == {"0B0200C0"}
        vdsmd.must("destroy", vm_id)

    inside(listens)


def test_what_was_told_of_a_machine_makes_it_again(daemon: Start, stage: Stage) -> None:
    """An engine keeps what it was told of devices, also of those that it did not ask for: they are where they were."""
    vdsmd = daemon(uri="embed")
    legacy = {
        "display": "vnc",
        "drives": [raw_disk(stage.base, "a.img") | {"if": "scsi"}],
        "cdrom": "",
        "tabletEnable": "true",
        "console": "true",
        "devices": [],
    }
    vm_id = created(vdsmd, machine() | legacy)
    told = of_kind(vdsmd, vm_id, "controller") + of_kind(vdsmd, vm_id, "channel")
    assert {device["device"] for device in told} >= {"scsi", "virtio-serial", "usb", "unix"}
    assert all(device["alias"] and device["address"] for device in told)
    (disk,) = (disk for disk in of_kind(vdsmd, vm_id, "disk") if disk["device"] == "disk")
    assert disk["apparentsize"] == str(1 << 20) and disk["truesize"].isdigit()
    assert (disk["readonly"], disk["shared"], disk["propagateErrors"]) == ("false", "false", "off")
    devices = shown(vdsmd, vm_id)["devices"]
    vdsmd.must("destroy", vm_id)
    # Without what only we know, and in another order.
    named = ("type", "device", "address", "path", "iface", "format", "specParams")
    kept = [{key: device[key] for key in named if device.get(key)} for device in reversed(devices)]
    again = created(vdsmd, machine(*kept, tabletEnable="true"))
    anew = shown(vdsmd, again)["devices"]
    assert sorted(map(place, anew)) == sorted(map(place, devices))
    vdsmd.must("destroy", again)


def place(device: dict[str, Any]) -> tuple[str, str, str]:
    return device["type"], device["device"], json.dumps(device.get("address"), sort_keys=True)


def test_secrets_are_kept_only_where_libvirt_is_a_daemon(daemon: Start) -> None:
    vdsmd = daemon(uri="embed")
    secret = {"uuid": str(uuid.uuid4()), "usageType": "ceph", "usageID": "a", "password": "c2VjcmV0"}
    for _ in range(2):
        assert vdsmd.call("registerSecrets", [secret], True)["status"]["code"] == 73
        assert vdsmd.call("unregisterSecrets", [secret["uuid"]])["status"]["code"] == 74
    auth = {"username": "cinder", "type": "ceph", "uuid": secret["uuid"]}
    rbd = {"type": "disk", "diskType": "network", "protocol": "rbd", "path": "pool/a", "iface": "virtio", "auth": auth}
    broken = machine(rbd | {"hosts": [{"name": "192.0.2.1", "port": "6789", "transport": "tcp"}]})
    vdsmd.must("create", broken)
    until(lambda: stats(vdsmd, broken["vmId"])["status"] == "Down", PATIENCE, "the start to be refused")
    assert "libvirt keeps secrets only where" in stats(vdsmd, broken["vmId"])["exitMessage"]
    vm_id = created(vdsmd, machine())
    refused = vdsmd.call("hotplugDisk", {"vmId": vm_id, "drive": rbd})["status"]
    assert refused["code"] == 45 and "libvirt keeps secrets only where" in refused["message"]
    for each in (vm_id, broken["vmId"]):
        vdsmd.must("destroy", each)


def test_scripts_of_an_operator_change_and_forbid(daemon: Start, stage: Stage) -> None:
    hooks, notes = stage.base / "hooks", stage.base / "notes"
    edits = {
        "before_vm_start": r"sed -i 's|</sysinfo>|<chassis><entry name=\"asset\">'$colour'</entry></chassis></sysinfo>|'",
        "after_vm_start": "grep -o 'asset.*</entry>'",
        "after_vm_destroy": "grep -o 'asset.*</entry>'",
        "before_vm_pause": "false",
    }
    for point, command in edits.items():
        script = hooks / point / "50_script"
        script.parent.mkdir(parents=True)
        script.write_text(f'#!/bin/sh\n{command} "$_hook_domxml" >>{notes} || exit 1\n')
        script.chmod(0o755)
    vdsmd = daemon(uri="embed", config={"paths": {"hooks": hooks}})
    vm_id = created(vdsmd, machine(custom={"colour": "red"}))
    assert ">red</entry>" in notes.read_text()
    vdsmd.must("cont", vm_id)
    refused = vdsmd.call("pause", vm_id)["status"]
    assert refused["code"] == 78 and "before_vm_pause" in refused["message"]
    assert stats(vdsmd, vm_id)["status"] == "Up"
    (hooks / "before_vm_start" / "50_script").write_text("#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    forbidden = machine()
    vdsmd.must("create", forbidden)
    until(lambda: stats(vdsmd, forbidden["vmId"])["status"] == "Down", PATIENCE, "the start to be forbidden")
    assert "not today" in stats(vdsmd, forbidden["vmId"])["exitMessage"]
    vdsmd.must("destroy", forbidden["vmId"])
    vdsmd.must("destroy", vm_id)
    assert len(notes.read_text().splitlines()) == 2


def test_what_cannot_be_started_says_why(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon(uri="embed")
    wrong = [
        machine(memSize=2**30),  # a pebibyte
        machine(raw_disk(stage.base, "disk", iface="virtio") | {"path": "/no/such/disk"}),
        machine({"type": "tpm", "device": "tpm", "specParams": {"path": "/no/such/tpm"}}),
        machine({"type": "hostdev", "device": "pci_ffff_ff_1f_7"}),
        machine({"type": "hostdev", "device": "usb_99_1_2"}),
        machine({"type": "hostdev", "device": "scsi_999_0_0_0"}),
        machine({"type": "graphics", "device": "vnc", "specParams": {"displayNetwork": "none"}}),
    ]
    for params in wrong:
        vdsmd.must("create", params)
    for params in wrong:
        vm_id = params["vmId"]
        until(lambda v=vm_id: stats(vdsmd, v)["status"] == "Down", PATIENCE, "the start to fail")  # type: ignore[misc]
        told = stats(vdsmd, vm_id)
        assert (told["exitCode"], told["exitReason"]) == (1, 3) and len(told["exitMessage"]) > 20
        vdsmd.must("destroy", vm_id)
    assert vdsmd.must("list")["vmList"] == []
    assert not [command for command in stage.processes().values() if "qemu-system" in command]


def test_out_of_disk_a_machine_is_not_taken_in(daemon: Start, stage: Stage) -> None:
    """The state directory is full: what is there goes on, and what is new is refused."""
    vdsmd = daemon(launcher=full_disk(stage.base / "0" / "run" / "state"))
    vm_id = created(vdsmd, {**machine(), "devices": []})
    filler = Path(f"/proc/{vdsmd.pid}/root{vdsmd.run_dir}/state/filler")
    fill(filler)
    other = machine(memSize=65, vmName="x" * 200)
    refused = vdsmd.call("create", other)["status"]
    assert refused["code"] == 16 and "No space left" in refused["message"]
    assert [seen["vmId"] for seen in vdsmd.must("list")["vmList"]] == [vm_id]
    filler.unlink()
    vdsmd.must("create", other)
    vdsmd.must("destroy", vm_id)
    vdsmd.must("destroy", other["vmId"])


def test_out_of_disk_a_start_fails_cleanly(daemon: Start, stage: Stage) -> None:
    """There is no room for what is made for a machine: it says so and leaves nothing, and the others go on."""
    base = stage.base / "0"
    media = base / "run" / "payload"
    vdsmd = daemon(uri="embed", launcher=full_disk(media))
    vm_id = created(vdsmd, machine(payload("floppy", "a", b"b")))
    filler = Path(f"/proc/{vdsmd.pid}/root{media}/filler")
    fill(filler)
    failing = machine(payload("floppy", "a", b"b" * 10_000))
    vdsmd.must("create", failing)
    until(lambda: stats(vdsmd, failing["vmId"])["status"] == "Down", PATIENCE, "the start to fail")
    told = stats(vdsmd, failing["vmId"])
    assert (told["exitCode"], told["exitReason"]) == (1, 3) and "No space left" in told["exitMessage"]
    vdsmd.must("destroy", failing["vmId"])
    left = {path.name for path in filler.parent.iterdir()} - {"filler"}
    assert len(left) == 1 and vm_id in left.pop()
    vdsmd.must("cont", vm_id)
    filler.unlink()
    again = created(vdsmd, failing)
    for each in (vm_id, again):
        vdsmd.must("destroy", each)


def fill(path: Path) -> None:
    """Write a file until there is no room any more."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def full_disk(folder: Path) -> list[str]:
    """Return what has a daemon run with a small file system of its own in the folder."""
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("needs a mount namespace")
    mount = f'mkdir -p {folder} && mount -t tmpfs -o size=512k,mode=700 none {folder} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh"]
