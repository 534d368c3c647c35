"""The host's verbs and the operators', over the wire, from a real daemon."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.running import PATIENCE, Running, Stage
from tests.until import until
from vdsmd.api import control

CAPABILITIES = """
    kvmEnabled cpuCores cpuThreads cpuSockets onlineCpus cpuSpeed cpuModel cpuFlags version_name software_version
    software_revision supportedENGINEs clusterLevels supportedProtocols networks bridges nics bondings vlans lastClient
    lastClientIface hooks operatingSystem uuid packages2 emulatedMachines ISCSIInitiatorName HBAInventory vmTypes memSize
    reservedMem guestOverhead rngSources numaNodes numaNodeDistance autoNumaBalancing selinux liveSnapshot liveMerge
    kdumpStatus netConfigDirty hostdevPassthrough additionalFeatures
"""
STATISTICS = """
    cpuUser cpuSys cpuIdle cpuLoad cpuUserVdsmd cpuSysVdsmd rxRate txRate rxDropped txDropped elapsedTime statsAge network
    memUsed anonHugePages thpState diskStats bootTime numaNodeMemFree cpuStatistics storageDomains memAvailable memCommitted
    memFree memShared swapTotal swapFree vmCount vmActive vmMigrating incomingVmMigrations outgoingVmMigrations v2vJobs
    dateTime momStatus ksmState ksmPages ksmCpu netConfigDirty generationID haStats
"""

Start = Callable[..., Running]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    stage = Stage()
    try:
        yield stage.start()
    finally:
        stage.clear(tell=False)


def test_capabilities_have_every_key_of_the_wire(running: Running) -> None:
    info = running.must("getVdsCapabilities")["info"]
    assert set(CAPABILITIES.split()) <= info.keys()
    assert (info["lastClient"], info["lastClientIface"]) == ("127.0.0.1", "lo")
    assert int(info["memSize"]) > 0
    assert int(info["cpuThreads"]) >= int(info["cpuCores"]) >= int(info["cpuSockets"]) >= 1


def test_statistics_have_every_key_of_the_wire(running: Running) -> None:
    info = running.must("getVdsStats")["info"]
    assert set(STATISTICS.split()) <= info.keys()
    assert uuid.UUID(info["generationID"])
    for key in ("cpuUser", "cpuSys", "cpuIdle"):
        assert 0 <= float(info[key]) <= 100
    assert info["vmCount"] == 0


def test_hardware_is_told_or_refused_with_its_code(running: Running) -> None:
    reply = running.call("getVdsHardwareInfo")
    assert reply["status"]["code"] in (0, 57)
    assert ("info" in reply) == (reply["status"]["code"] == 0)


@pytest.mark.parametrize("level", [10, "10", "debug"])
def test_the_log_level_can_be_set(level: Any, running: Running) -> None:
    running.must("setLogLevel", 30)
    before = len(running.log())
    running.must("setLogLevel", level)
    running.must("ping")
    until(lambda: "answer verb=ping" in running.log()[before:], what="a message that is only for debugging")
    running.must("setLogLevel", 20)


@pytest.mark.parametrize("level", [0, -1, 51, 2**31 - 1, "", "loud", "1.5", "NOTSET", "\u0661\u0660", "9" * 9999])
def test_a_log_level_that_is_none(level: Any, running: Running) -> None:
    status = running.call("setLogLevel", level)["status"]
    assert status["code"] == 91
    assert "log level" in status["message"]


@pytest.mark.parametrize("level", [1.5, True, [10], {"level": 10}])
def test_a_log_level_of_another_type(level: Any, running: Running) -> None:
    status = running.call("setLogLevel", level)["status"]
    assert status["code"] == 91
    assert "level" in status["message"]


def test_one_loggers_level(running: Running) -> None:
    running.must("setLogLevel", 30)
    before = len(running.log())
    running.must("setLogLevel", 10, "api")
    running.must("ping")
    until(lambda: "answer verb=ping" in running.log()[before:], what="a message of that logger")
    running.must("setLogLevel", 20, "api")
    running.must("setLogLevel", 20)


def test_the_generation_is_kept_by_a_reexec_and_new_on_a_start(daemon: Start) -> None:
    first = daemon()
    before = first.must("getVdsStats")["info"]
    first.reexec()
    after = first.must("getVdsStats")["info"]
    assert after["generationID"] == before["generationID"]
    assert after.keys() == before.keys()
    assert int(after["elapsedTime"]) >= int(before["elapsedTime"])
    first.stop()
    assert daemon(again=first).must("getVdsStats")["info"]["generationID"] != before["generationID"]


@pytest.mark.parametrize("wrong", [{"run": 7}, {"run": "x"}, {"run": [1]}, {"speed": 1}, {"../run": 1}])
def test_ksm_is_not_tuned_by_what_makes_no_sense(wrong: Any, running: Running) -> None:
    assert running.call("setKsmTune", wrong)["status"]["code"] == 71


def test_ksm_is_tuned_to_what_it_is_already(running: Running) -> None:
    before = running.must("getVdsStats")["info"]["ksmPages"]
    running.must("setKsmTune", {"pages_to_scan": str(before)})
    assert running.must("getVdsStats")["info"]["ksmPages"] == before


def test_there_is_no_hosted_engine_to_maintain(running: Running) -> None:
    for mode in ("global", "LOCAL"):
        assert running.call("setHaMaintenanceMode", mode, True)["status"]["code"] == 40
    assert running.call("setHaMaintenanceMode", "other", True)["status"]["code"] == 61


def test_functions_of_a_device_that_has_none(running: Running) -> None:
    for device in ("pci_ffff_ff_1f_7", "nonsense", "../../x"):
        status = running.call("hostdevChangeNumvfs", device, 2)["status"]
        assert status["code"] not in (0, 44), status


def test_a_daemon_that_is_asked_to_stop_answers_and_stops(daemon: Start) -> None:
    asked = daemon()
    asked.must("prepareForShutdown")
    assert asked.process.wait(PATIENCE) == 0
    assert not (asked.run_dir / "endpoints.json").exists()


def test_operators_verbs_are_for_the_local_socket(running: Running) -> None:
    for name in ("vdsmd.reexec", "vdsmd.cancel", "vdsmd.state"):
        status = running.call(name)["status"]
        assert status["code"] == 75
        assert "local socket" in status["message"]
    info = running.must("vdsmd.status")["info"]
    assert info["pid"] == running.pid


def test_a_status_holds_nothing_that_the_wire_cannot() -> None:
    told = {"children": [{"start_time": 2**40, "pid": 7}], "since": 1.5, "none": None, "yes": True}
    assert control._sendable(told) == {
        "children": [{"start_time": str(2**40), "pid": 7}],
        "since": 1.5,
        "none": "",
        "yes": True,
    }
