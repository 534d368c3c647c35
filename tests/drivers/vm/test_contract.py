"""What clients are promised of virtual machines, word for word, under each hypervisor: one suite, run over all of them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.running import Running, Stage
from tests.until import until

pytestmark = pytest.mark.slow

PATIENCE = 180.0

NO_VM = {"code": 1, "message": "Virtual machine does not exist"}
DONE = {"code": 0, "message": "Done"}

WIRE = (str, int, float, bool, list, dict)


class Case(NamedTuple):
    """A hypervisor, and in what its machines differ for clients."""

    uri: str
    has_process: bool
    has_tickets: bool


MOCK = pytest.param(Case("test:///default", has_process=False, has_tickets=False), id="mock")
EMBEDDED = pytest.param(Case("embed", has_process=True, has_tickets=True), id="embedded", marks=pytest.mark.slow)

only_embedded = pytest.mark.parametrize("hypervisor", [EMBEDDED], indirect=True)


@pytest.fixture(scope="module", params=[MOCK, EMBEDDED])
def hypervisor(request: pytest.FixtureRequest) -> Iterator[tuple[Case, Running]]:
    stage = Stage()
    failed = request.session.testsfailed
    try:
        yield request.param, stage.start(uri=request.param.uri, config={"vars": {"vm_sample_interval": "0.5"}})
    finally:
        stage.clear(tell=request.session.testsfailed > failed)


@pytest.fixture
def case(hypervisor: tuple[Case, Running]) -> Case:
    return hypervisor[0]


@pytest.fixture
def vdsmd(hypervisor: tuple[Case, Running]) -> Iterator[Running]:
    """Give the daemon, without machines, before and after."""
    daemon = hypervisor[1]
    yield daemon
    for machine in daemon.must("list")["vmList"]:
        daemon.must("destroy", machine["vmId"])
    assert daemon.must("list")["vmList"] == []


def stats(vdsmd: Running, vm_id: str) -> dict[str, Any]:
    (found,) = vdsmd.must("getVmStats", vm_id)["statsList"]
    assert isinstance(found, dict)
    return found


def becomes(vdsmd: Running, vm_id: str, status: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        seen = stats(vdsmd, vm_id)
        if seen["status"] == "Down" != status:
            pytest.fail(f"{vm_id} is Down: {seen['exitMessage']}")
        return seen if seen["status"] == status else None

    seen = until(found, PATIENCE, f"{vm_id} to be {status}")
    assert seen is not None
    return seen


def params(**more: Any) -> dict[str, Any]:
    vm_id = str(uuid.uuid4())
    return {"vmId": vm_id, "vmName": f"vm-{vm_id[:8]}", "memSize": 32, "display": "vnc", **more}


@pytest.fixture
def boot(vdsmd: Running) -> Callable[..., str]:
    def boot(**more: Any) -> str:
        asked = params(**more)
        vdsmd.must("create", asked)
        becomes(vdsmd, asked["vmId"], "Up")
        return str(asked["vmId"])

    return boot


def test_create_answers_with_one_struct(vdsmd: Running) -> None:
    asked = params(custom={"key": "value"})
    reply = vdsmd.call("create", asked)
    assert reply["status"] == DONE
    assert {
        key: reply["vmList"][key] for key in ("vmId", "vmName", "memSize", "status", "custom", "vmType", "pid")
    } == {
        "vmId": asked["vmId"],
        "vmName": asked["vmName"],
        "memSize": 32,
        "status": "WaitForLaunch",
        "custom": {"key": "value"},
        "vmType": "kvm",
        "pid": 0,
    }
    becomes(vdsmd, asked["vmId"], "Up")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"memSize": ""}, 11),
        ({"vmId": ""}, 11),
        ({"vmId": "nonsense"}, 11),
        ({"memSize": "0"}, 11),
        ({"memSize": "much"}, 91),
    ],
)
def test_create_refuses_what_it_cannot_mean(vdsmd: Running, change: dict[str, Any], code: int) -> None:
    reply = vdsmd.call("create", {**params(), **change})
    assert (reply["status"]["code"], list(reply)) == (code, ["status"])
    assert vdsmd.must("list")["vmList"] == []


def test_create_refuses_an_id_that_is_taken(vdsmd: Running, boot: Callable[..., str]) -> None:
    vm_id = boot()
    pid = stats(vdsmd, vm_id)["pid"]
    assert vdsmd.call("create", {**params(), "vmId": vm_id})["status"]["code"] == 4
    assert (stats(vdsmd, vm_id)["status"], stats(vdsmd, vm_id)["pid"]) == ("Up", pid)


def test_the_three_forms_of_list(vdsmd: Running, boot: Callable[..., str]) -> None:
    one, two = boot(), boot()
    assert vdsmd.call("list") == {
        "status": DONE,
        "vmList": [{"vmId": one, "status": "Up"}, {"vmId": two, "status": "Up"}],
    }
    full = vdsmd.must("list", True)["vmList"]
    assert [machine["vmId"] for machine in full] == [one, two]
    assert {"devices", "display", "status", "pid", "memSize", "smp", "vmName"} <= full[0].keys()
    unknown = str(uuid.uuid4())
    assert [machine["vmId"] for machine in vdsmd.must("list", True, [two, unknown])["vmList"]] == [two]
    assert vdsmd.must("list", False, [unknown])["vmList"] == []
    # What counts is whether there is something, not what it says.
    assert "devices" in vdsmd.must("list", "false")["vmList"][0]
    assert "devices" not in vdsmd.must("list", "")["vmList"][0]


def test_statistics(vdsmd: Running, case: Case, boot: Callable[..., str]) -> None:
    vm_id = boot()
    # libvirt's mock has nothing to tell of its machines' processors.
    until(lambda: not case.has_process or stats(vdsmd, vm_id)["cpuUsage"] != "0", PATIENCE)
    found = stats(vdsmd, vm_id)
    assert (found["vmId"], found["status"], found["monitorResponse"]) == (vm_id, "Up", "0")
    assert (found["pid"] != "0") is case.has_process
    if case.has_process:
        assert f"\0{vm_id}\0" in Path(f"/proc/{found['pid']}/cmdline").read_text()
    assert all(isinstance(value, WIRE) for value in found.values())
    (same,) = vdsmd.must("getAllVmStats")["statsList"]
    assert same.keys() == found.keys()


def test_pause_and_cont(vdsmd: Running, boot: Callable[..., str]) -> None:
    vm_id = boot()
    for verb, status in (("pause", "Paused"), ("pause", "Paused"), ("cont", "Up"), ("cont", "Up")):
        assert vdsmd.call(verb, vm_id) == {"status": DONE, "output": [""]}
        assert stats(vdsmd, vm_id)["status"] == status
        assert ("pauseCode" in stats(vdsmd, vm_id)) is (status == "Paused")


def test_launched_paused(vdsmd: Running) -> None:
    asked = params(launchPaused="true")
    vdsmd.must("create", asked)
    assert becomes(vdsmd, asked["vmId"], "Paused")["pauseCode"] == "NOERR"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("destroy", ()),
        ("getVmStats", ()),
        ("pause", ()),
        ("cont", ()),
        ("shutdown", ()),
        ("setVmTicket", ("secret", 10)),
    ],
)
def test_an_unknown_machine(vdsmd: Running, verb: str, arguments: tuple[Any, ...]) -> None:
    assert vdsmd.call(verb, str(uuid.uuid4()), *arguments) == {"status": NO_VM}


def test_destroy(vdsmd: Running, boot: Callable[..., str]) -> None:
    vm_id = boot()
    pid = int(stats(vdsmd, vm_id)["pid"])
    assert vdsmd.call("destroy", vm_id) == {"status": DONE}
    assert vdsmd.call("getVmStats", vm_id) == {"status": NO_VM}
    until(lambda: not pid or not os.path.exists(f"/proc/{pid}"), PATIENCE)


def test_an_id_can_be_used_again_at_once(vdsmd: Running) -> None:
    asked = params()
    for _ in range(4):
        vdsmd.must("create", asked)
        becomes(vdsmd, asked["vmId"], "Up")
        vdsmd.must("destroy", asked["vmId"])
    vdsmd.must("create", asked)
    becomes(vdsmd, asked["vmId"], "Up")
    status = vdsmd.must("vdsmd.status")["info"]
    until(lambda: not vdsmd.must("vdsmd.status")["info"]["owners"]["vm"], PATIENCE, str(status))
    assert stats(vdsmd, asked["vmId"])["status"] == "Up"


def test_a_machine_that_cannot_start(vdsmd: Running, boot: Callable[..., str]) -> None:
    """Two machines of one name: libvirt refuses the second."""
    name = vdsmd.must("list", True, [boot()])["vmList"][0]["vmName"]
    asked = params(vmName=name)
    vdsmd.must("create", asked)
    found = becomes(vdsmd, asked["vmId"], "Down")
    assert (found["exitCode"], found["exitReason"]) == (1, 3)
    assert "already" in found["exitMessage"]
    assert {"vmId", "status", "exitCode", "exitReason", "exitMessage"} <= found.keys()
    assert vdsmd.call("pause", asked["vmId"]) == {"status": NO_VM}
    assert vdsmd.call("cont", asked["vmId"])["status"]["code"] == 16
    assert vdsmd.call("destroy", asked["vmId"]) == {"status": DONE}


def test_shutdown_by_force(vdsmd: Running, boot: Callable[..., str]) -> None:
    vm_id = boot(acpiEnable="false")
    assert vdsmd.call("shutdown", vm_id)["status"]["code"] == 4
    assert stats(vdsmd, vm_id)["status"] == "Up"
    assert vdsmd.call("shutdown", vm_id, "0", "bye", False, 0, True) == {"status": DONE}
    found = becomes(vdsmd, vm_id, "Down")
    assert (found["exitCode"], found["exitReason"]) == (0, 6)
    assert vdsmd.call("shutdown", vm_id) == {"status": NO_VM}


def test_shutdown_by_force_of_one_that_is_paused(vdsmd: Running, boot: Callable[..., str]) -> None:
    vm_id = boot()
    vdsmd.must("pause", vm_id)
    assert vdsmd.call("shutdown", vm_id, "0", "bye", False, 3600, True) == {"status": DONE}
    found = becomes(vdsmd, vm_id, "Down")
    assert (found["exitCode"], found["exitReason"]) == (0, 6)


def test_tickets(vdsmd: Running, case: Case, boot: Callable[..., str]) -> None:
    vm_id = boot()
    for ttl in (60, "60", 0):
        reply = vdsmd.call("setVmTicket", vm_id, "secret", ttl, "disconnect", {})
        assert reply["status"]["code"] == (0 if case.has_tickets else 18)
    assert vdsmd.call("setVmTicket", vm_id, "secret", 60, "nonsense")["status"]["code"] == 91


def test_machines_are_as_they_were_after_re_execs(vdsmd: Running, boot: Callable[..., str]) -> None:
    one, two = boot(), boot()
    vdsmd.must("pause", two)
    before = vdsmd.must("list", True)["vmList"]
    for _ in range(3):
        vdsmd.reexec()
        assert vdsmd.must("list", True)["vmList"] == before
    until(lambda: not vdsmd.must("vdsmd.status")["info"]["owners"]["vm"], PATIENCE)
    assert vdsmd.must("list", True)["vmList"] == before
    vdsmd.must("cont", two)
    vdsmd.must("pause", one)
    assert [machine["status"] for machine in vdsmd.must("list")["vmList"]] == ["Paused", "Up"]


# What only a machine with a process of its own can do


@only_embedded
def test_a_bad_disk(vdsmd: Running, tmp_path: Path) -> None:
    disk = {"type": "disk", "device": "disk", "iface": "virtio", "path": str(tmp_path / "none.raw"), "format": "raw"}
    asked = params(devices=[disk])
    vdsmd.must("create", asked)
    found = becomes(vdsmd, asked["vmId"], "Down")
    assert (found["exitCode"], found["exitReason"]) == (1, 3)
    assert "none.raw" in found["exitMessage"]
    assert list((vdsmd.run_dir / "console").glob(f"{asked['vmId']}*")) == []


@only_embedded
@pytest.mark.parametrize(("number", "code", "reason"), [(signal.SIGKILL, 1, 2), (signal.SIGTERM, 0, 6)])
def test_qemu_is_ended_from_outside(
    vdsmd: Running, boot: Callable[..., str], number: signal.Signals, code: int, reason: int
) -> None:
    vm_id, other = boot(), boot()
    os.kill(int(stats(vdsmd, vm_id)["pid"]), number)
    found = becomes(vdsmd, vm_id, "Down")
    assert (found["exitCode"], found["exitReason"]) == (code, reason)
    assert stats(vdsmd, other)["status"] == "Up"


@only_embedded
def test_a_stuck_qemu_is_told_and_holds_up_no_other(vdsmd: Running, boot: Callable[..., str]) -> None:
    stuck, other = boot(), boot()
    pid = int(stats(vdsmd, stuck)["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: stats(vdsmd, stuck)["monitorResponse"] == "-1", PATIENCE)
        assert stats(vdsmd, other)["monitorResponse"] == "0"
        assert vdsmd.call("pause", other) == {"status": DONE, "output": [""]}
        assert stats(vdsmd, stuck)["status"] == "Up"
        until(lambda: stuck in vdsmd.must("vdsmd.status")["info"]["owners"]["vm"], PATIENCE)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: stats(vdsmd, stuck)["monitorResponse"] == "0", PATIENCE)
    until(lambda: not vdsmd.must("vdsmd.status")["info"]["owners"]["vm"], PATIENCE)


@only_embedded
def test_a_guest_is_told_of_its_host(vdsmd: Running, boot: Callable[..., str]) -> None:
    pid = stats(vdsmd, boot())["pid"]
    host = vdsmd.must("getVdsCapabilities")["info"]
    command = Path(f"/proc/{pid}/cmdline").read_text()
    assert f"serial={host['uuid']}" in command or not host["uuid"]
    assert "manufacturer=oVirt" in command


@only_embedded
def test_graphics_ports_and_addresses_are_known_when_it_runs(vdsmd: Running, boot: Callable[..., str]) -> None:
    (machine,) = vdsmd.must("list", True, [boot()])["vmList"]
    (display,) = [device for device in machine["devices"] if device["type"] == "graphics"]
    assert machine["displayPort"] == display["port"] >= 5900
    assert time.time() - float(stats(vdsmd, machine["vmId"])["elapsedTime"]) > 0
