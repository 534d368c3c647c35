"""From samples to the statistics of the wire: which values, in which form."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.vm.conf.params import normalise
from drivers.vm.vmstats import Sample, device_hash, down_stats, running_stats, sample_of, sizes
from tests.drivers.vm.machines import CASES, QXL, SPICE, VNC, disk, nic
from tests.drivers.vm.values import parameters

SECOND = 10**9

RECORD: dict[str, Any] = {
    "state.state": 1,
    "cpu.time": 20 * SECOND,
    "cpu.user": 12 * SECOND,
    "cpu.system": 8 * SECOND,
    "balloon.current": 60000,
    "balloon.maximum": 65536,
    "vcpu.current": 2,
    "vcpu.maximum": 4,
    "net.count": 2,
    "net.0.name": "vnet0",
    "net.0.rx.bytes": 5_000_000,
    "net.0.rx.errs": 1,
    "net.0.rx.drop": 2,
    "net.0.tx.bytes": 2**40,
    "net.0.tx.errs": 3,
    "net.0.tx.drop": 4,
    "net.0.rx.pkts": 9,
    "block.count": 3,
    "block.0.name": "vda",
    "block.0.rd.reqs": 100,
    "block.0.rd.bytes": 409600,
    "block.0.rd.times": 7000,
    "block.0.wr.reqs": 10,
    "block.0.wr.bytes": 2**41,
    "block.0.wr.times": 50,
    "block.0.fl.reqs": 5,
    "block.0.fl.times": 1000,
    "block.0.allocation": 16384,
    "block.0.capacity": 131072,
    "block.0.physical": 65536,
    "block.1.name": "vda",
    "block.1.backingIndex": 7,
    "block.1.rd.reqs": 999,
    "block.2.name": "hdc",
}


def conf(**params: Any) -> dict[str, Any]:
    devices = [disk(imageID="image-1"), disk("", GUID="lun-1"), nic(name="vnet0"), SPICE, VNC, QXL]
    return normalise({**CASES[0].whole, "memGuaranteedSize": "32", "devices": devices, **params})


def earlier(seconds: float = 2.0) -> Sample:
    return Sample(
        taken=100.0 - seconds,
        cpu=18 * SECOND,
        system=7 * SECOND,
        vcpus=2,
        nics={"vnet0": [0, 0, 0, 2**40 - 250_000, 0, 0]},
        disks={"vda": [0, 0, 0, 0, 2**41 - 5, 0, 0, 0, 0, 0]},
    )


def test_sample_keeps_what_is_needed() -> None:
    assert sample_of(RECORD, 100.0) == Sample(
        taken=100.0,
        cpu=20 * SECOND,
        system=8 * SECOND,
        vcpus=2,
        balloon=60000,
        balloon_max=65536,
        nics={"vnet0": [5_000_000, 1, 2, 2**40, 3, 4]},
        disks={"vda": [100, 409600, 7000, 10, 2**41, 50, 5, 1000, 131072, 65536], "hdc": [0] * 10},
    )


def test_sample_of_nothing() -> None:
    assert sample_of({}, 1.0) == Sample(taken=1.0)


def test_sample_crosses_an_exec() -> None:
    sample = sample_of(RECORD, 100.0)
    text = msgspec.json.encode(sample)
    assert msgspec.json.decode(text, type=Sample) == sample
    assert len(text) < 200


def test_rates_are_those_between_two_samples() -> None:
    stats = running_stats(conf(), "Up", sample_of(RECORD, 100.0), earlier(), now=103.5)
    assert {key: stats[key] for key in ("cpuUser", "cpuSys", "cpuUsage", "vcpuCount", "statsAge")} == {
        "cpuUser": "50.00",
        "cpuSys": "50.00",
        "cpuUsage": str(20 * SECOND),
        "vcpuCount": "2",
        "statsAge": "3.50",
    }
    assert stats["network"] == {
        "vnet0": {
            "name": "vnet0",
            "macAddr": "00:1a:4a:16:01:51",
            "speed": "1000",
            "state": "unknown",
            "rxErrors": "1",
            "rxDropped": "2",
            "txErrors": "3",
            "txDropped": "4",
            "rxRate": "2.00",
            "txRate": "0.10",
            "rx": "5000000",
            "tx": str(2**40),
            "sampleTime": 100.0,
        }
    }
    assert list(stats["disks"]) == ["vda", "vdb", "hdc"]
    assert stats["disks"]["vda"] == {
        "imageID": "image-1",
        "truesize": "65536",
        "apparentsize": "131072",
        "readRate": "204800.00",
        "writeRate": "2.50",
        "readLatency": "70",
        "writeLatency": "5",
        "flushLatency": "200",
        "readOps": "100",
        "writeOps": "10",
        "readBytes": "409600",
        "writtenBytes": str(2**41),
    }
    assert stats["disks"]["vdb"]["lunGUID"] == "lun-1"
    assert "imageID" not in stats["disks"]["vdb"]


@pytest.mark.parametrize(
    ("form", "told", "true", "apparent"),
    [
        ("raw", [131072, 65536], "65536", "131072"),
        ("cow", [131072, 65536], "65536", "65536"),
        ("raw", [131072, 0], "0", "131072"),
        ("raw", None, "7", "8"),
    ],
)
def test_the_sizes_of_a_disk(form: str, told: list[int] | None, true: str, apparent: str) -> None:
    """A sparse file is longer than what it takes. As long as nothing is known, what the caller said is told."""
    said = {"truesize": "7", "apparentsize": "8"} if told is None else {}
    assert sizes({"format": form, **said}, told) == {"truesize": true, "apparentsize": apparent}


def test_slow_nics_are_full_earlier() -> None:
    devices = [nic(name="vnet0", nicModel="rtl8139")]
    stats = running_stats(conf(devices=devices), "Up", sample_of(RECORD, 100.0), earlier(), now=100.0)
    assert (stats["network"]["vnet0"]["speed"], stats["network"]["vnet0"]["rxRate"]) == ("100", "20.00")


@pytest.mark.parametrize(
    "previous", [None, earlier(0.0), earlier(-5.0)], ids=["none", "no time between", "from the future"]
)
def test_no_rates_without_time_between(previous: Sample | None) -> None:
    stats = running_stats(conf(), "Up", sample_of(RECORD, 100.0), previous, now=100.0)
    assert (stats["cpuUser"], stats["cpuSys"]) == ("0.00", "0.00")
    assert stats["network"]["vnet0"]["rxRate"] == "0.00"
    assert (stats["disks"]["vda"]["readRate"], stats["disks"]["vda"]["readLatency"]) == ("0.00", "0")
    assert stats["disks"]["vda"]["readOps"] == "100"


def test_counters_that_start_anew_give_no_negative_rates() -> None:
    after, before = earlier(0.0), sample_of(RECORD, 90.0)
    stats = running_stats(conf(), "Up", after, before, now=100.0)
    assert (stats["cpuUser"], stats["cpuSys"]) == ("0.00", "0.00")
    assert stats["disks"]["vda"]["readRate"] == "0.00"


def test_before_the_first_sample_everything_is_there() -> None:
    stats = running_stats(conf(), "WaitForLaunch", now=5.0)
    assert stats["statsAge"] == "0.00"
    assert stats["elapsedTime"] == "0"
    assert list(stats["disks"]) == ["vda", "vdb"]
    assert stats["disks"]["vda"]["truesize"] == "0"
    assert stats["network"]["vnet0"]["rx"] == "0"
    assert (stats["session"], stats["username"], stats["guestCPUCount"]) == ("Unknown", "Unknown", -1)
    assert stats["monitorResponse"] == "0"
    assert not {"pauseCode", "watchdogEvent", "migrationProgress", "exitCode"} & stats.keys()


def test_what_the_caller_knows_is_told() -> None:
    facts: dict[str, Any] = {
        "elapsed": 61.9,
        "status_since": 12.3456,
        "pid": 77,
        "responsive": False,
        "pause_code": "ENOSPC",
    }
    more: dict[str, Any] = {
        "watchdog": {"time": 1.5, "action": "reset"},
        "migration_progress": 0,
        "guest": {"username": "ann", "memUsage": "7"},
    }
    stats = running_stats(conf(cdrom="/c.iso", boot="d"), "Paused", now=5.0, **facts, **more)
    told = {
        "elapsedTime": "61",
        "statusTime": "12345",
        "pid": "77",
        "monitorResponse": "-1",
        "pauseCode": "ENOSPC",
        "watchdogEvent": {"time": 1.5, "action": "reset"},
        "migrationProgress": 0,
        "username": "ann",
        "memUsage": "7",
        "cdrom": "/c.iso",
        "boot": "d",
        "status": "Paused",
        "session": "Unknown",
    }
    assert {key: stats[key] for key in told} == told


def test_displays() -> None:
    running = conf()
    running["devices"][3] |= {"port": 5900, "tlsPort": 5901}
    running |= {"displayPort": 5900, "displaySecurePort": 5901, "displayIp": "192.0.2.7"}
    stats = running_stats(running, "Up", now=1.0)
    assert (stats["displayType"], stats["displayPort"], stats["displaySecurePort"]) == ("qxl", 5900, 5901)
    assert stats["displayInfo"] == [
        {"type": "spice", "port": "5900", "tlsPort": "5901", "ipAddress": "192.0.2.7"},
        {"type": "vnc", "port": "-1", "tlsPort": "-1", "ipAddress": "192.0.2.7"},
    ]


def test_balloon_is_told_of_when_there_is_one() -> None:
    balloon = {"type": "balloon", "device": "memballoon", "specParams": {"model": "virtio"}}
    stats = running_stats(conf(devices=[balloon]), "Up", sample_of(RECORD, 1.0), now=1.0)
    assert stats["balloonInfo"] == {
        "balloon_max": "65536",
        "balloon_min": "32768",
        "balloon_cur": "60000",
        "balloon_target": "60000",
    }
    without = conf(devices=[{**balloon, "specParams": {"model": "none"}}])
    assert running_stats(without, "Up", sample_of(RECORD, 1.0), now=1.0)["balloonInfo"] == {}
    assert running_stats(conf(), "Up", sample_of(RECORD, 1.0), now=1.0)["balloonInfo"] == {}


def test_limits_of_disks() -> None:
    limits = {"read_iops_sec": "100"}
    stats = running_stats(conf(devices=[disk(specParams={"ioTune": limits}), disk("/b")]), "Up", now=1.0)
    assert stats["ioTune"] == [{"name": "vda", "path": "/images/disk.raw", "ioTune": limits}]


def test_hash_changes_with_the_devices() -> None:
    one, two = conf(), conf()
    assert device_hash(one) == device_hash(two)
    two["devices"][0]["alias"] = "virtio-disk0"
    assert device_hash(one) != device_hash(two)
    assert len(device_hash(one)) == 16


def test_down() -> None:
    assert down_stats(
        conf(timeOffset="-3600"), exit_code=1, exit_message="it broke", exit_reason=3, status_since=1.5
    ) == {
        "vmId": CASES[0].vm_id,
        "status": "Down",
        "timeOffset": "-3600",
        "statusTime": "1500",
        "exitCode": 1,
        "exitMessage": "it broke",
        "exitReason": 3,
    }
    assert "statusTime" not in down_stats(conf(), exit_code=0, exit_message="", exit_reason=0)


def sendable(value: object) -> bool:
    """Whether XML-RPC can carry the value, numbers of 32 bits and no nil."""
    match value:
        case dict():
            return all(isinstance(key, str) and sendable(item) for key, item in value.items())
        case list():
            return all(map(sendable, value))
        case bool() | str() | float():
            return True
        case int():
            return -(2**31) <= value < 2**31
        case _:
            return False


def test_sendable_knows_what_is_not() -> None:
    assert not any(map(sendable, [None, 2**31, [None], {"a": b""}, {1: 2}]))


@settings(deadline=None, derandomize=True, database=None)
@given(parameters(), st.booleans())
def test_statistics_of_any_machine_can_be_sent(params: dict[str, Any], sampled: bool) -> None:
    try:
        any_conf = normalise(params)
    except DriverError:
        return
    samples = [sample_of(RECORD, 100.0), earlier()] if sampled else []
    assert sendable(running_stats(any_conf, "Up", *samples, now=101.0))
    assert sendable(down_stats(any_conf, exit_code=1, exit_message="", exit_reason=1))
    assert sendable(any_conf)
