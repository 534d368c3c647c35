"""From two samples of a domain's counters to the statistics of the wire.

It promises values of the wire's own kinds in the wire's own forms: numbers that may outgrow 32 bits and all figures with a
fraction are text, nothing is None, and what is not known yet has the value that clients know for it. Rates are those
between two samples: zero after the first one, and never negative.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from drivers.vm.machine import BlockJob, Policy

Conf = Mapping[str, Any]
Stats = dict[str, Any]

_NIC = ("rx.bytes", "rx.errs", "rx.drop", "tx.bytes", "tx.errs", "tx.drop")
_TRANSFERS = ("rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times")
_DISK = (*_TRANSFERS, "fl.reqs", "fl.times", "capacity", "physical")
"""`physical`: what a disk takes of its storage. `capacity`: how large it is for the guest, and how long a raw one is."""
_SLOW_NICS = {"rtl8139": 100, "ne2k_pci": 10, "i82551": 100, "i82557b": 100, "i82559er": 100, "pcnet": 100}
"""Speeds in Mb/s of models that are no gigabit nics."""

_SILENT_GUEST: Stats = {
    "username": "Unknown",
    "session": "Unknown",
    "memUsage": "0",
    "guestCPUCount": -1,
    "guestIPs": "",
    "guestFQDN": "",
    "appsList": [],
    "disksUsage": [],
    "netIfaces": [],
    "memoryStats": {},
}
"""What is said of a guest whose agent has not spoken."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The counters of one domain at one moment, and no more than the statistics need. Times in ns, memory in KiB."""

    taken: float
    """Seconds of the monotonic clock."""
    cpu: int = 0
    system: int = 0
    vcpus: int = 0
    balloon: int = 0
    balloon_max: int = 0
    nics: dict[str, Annotated[list[int], msgspec.Meta(min_length=len(_NIC), max_length=len(_NIC))]] = {}
    disks: dict[str, Annotated[list[int], msgspec.Meta(min_length=len(_DISK), max_length=len(_DISK))]] = {}


def sample_of(values: Mapping[str, Any], taken: float) -> Sample:
    """Return the sample in one record of libvirt's bulk call (virConnectGetAllDomainStats names the keys)."""
    count = values.get
    return Sample(
        taken=taken,
        cpu=count("cpu.time", 0),
        system=count("cpu.system", 0),
        vcpus=count("vcpu.current", 0),
        balloon=count("balloon.current", 0),
        balloon_max=count("balloon.maximum", 0),
        nics=_group(values, "net", _NIC),
        disks=_group(values, "block", _DISK),
    )


def _group(values: Mapping[str, Any], group: str, counters: tuple[str, ...]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number in range(values.get(f"{group}.count", 0)):
        name = values.get(f"{group}.{number}.name")
        if name is not None and name not in found:  # a name that comes again is a layer below the disk
            found[name] = [values.get(f"{group}.{number}.{counter}", 0) for counter in counters]
    return found


def running_stats(
    conf: Conf,
    status: str,
    sample: Sample | None = None,
    previous: Sample | None = None,
    *,
    now: float,
    elapsed: float = 0.0,
    status_since: float = 0.0,
    pid: int = 0,
    responsive: bool = True,
    pause_code: str = "",
    watchdog: Mapping[str, Any] | None = None,
    migration_progress: int | None = None,
    guest: Mapping[str, Any] | None = None,
    jobs: Iterable[BlockJob] = (),
    policy: Policy = Policy(),  # noqa: B008 (it is frozen)
) -> Stats:
    """Return the statistics of a virtual machine that is not Down.

    now: seconds of the samples' clock. elapsed: seconds since the start. status_since: seconds of the caller's choice.
    pause_code: only for a machine that is paused for an error. watchdog: the last event, {time, action}.
    guest: what the guest's agent told, over what is said of a guest that tells nothing.
    jobs: all of its disks; shown are those that a caller has given an id. policy: what it may take of the host.
    """
    span = sample.taken - previous.taken if sample and previous else 0.0
    per_second = 1 / span if span > 0 else 0.0
    stats = {
        "vmId": conf["vmId"],
        "vmName": conf.get("vmName", ""),
        "status": status,
        "pid": str(pid),
        "vmType": conf.get("vmType", "kvm"),
        "kvmEnable": conf.get("kvmEnable", "true"),
        "acpiEnable": conf.get("acpiEnable", "true"),
        "timeOffset": str(conf.get("timeOffset", "0")),
        "clientIp": conf.get("clientIp", ""),
        "elapsedTime": str(max(0, int(elapsed))),
        "statusTime": str(int(status_since * 1000)),
        "statsAge": _figure(max(0.0, now - sample.taken) if sample else 0.0),
        "monitorResponse": "0" if responsive else "-1",
        "vNodeRuntimeInfo": {},
        "vmJobs": {job.job_id: _job(job) for job in jobs if job.kind != "copy"},
        **_display(conf),
        **_processor(conf, sample, previous, per_second),
        "vcpuQuota": str(policy.quota),
        "vcpuPeriod": str(policy.period),
        "vcpuUserLimit": policy.vcpu_limit or "100",
        "balloonInfo": _balloon(conf, sample),
        "network": _network(conf, sample, previous, per_second),
        "disks": _disks(conf, sample, previous, per_second),
        "ioTune": [_io_tune(disk) for disk in _devices(conf, "disk") if _said(disk).get("ioTune")],
        "hash": device_hash(conf),
        **_SILENT_GUEST,
        **(guest or {}),
    }
    stats.update((key, conf[key]) for key in ("boot", "cdrom") if conf.get(key))
    if pause_code:
        stats["pauseCode"] = pause_code
    if watchdog:
        stats["watchdogEvent"] = dict(watchdog)
    if migration_progress is not None:
        stats["migrationProgress"] = migration_progress
    return stats


def down_stats(
    conf: Conf, *, exit_code: int, exit_message: str, exit_reason: int, status_since: float | None = None
) -> Stats:
    """Return what there is to say of a virtual machine that is Down."""
    stats = {
        "vmId": conf["vmId"],
        "status": "Down",
        "exitCode": int(exit_code),
        "exitMessage": exit_message,
        "exitReason": int(exit_reason),
    }
    if "timeOffset" in conf:
        stats["timeOffset"] = str(conf["timeOffset"])
    if status_since is not None:
        stats["statusTime"] = str(int(status_since * 1000))
    return stats


def device_hash(conf: Conf) -> str:
    """Text that changes when the devices do. (A checksum, not a digest: hashlib would be imported for this alone.)"""
    text = msgspec.json.encode(conf.get("devices", []), order="deterministic")
    return f"{binascii.crc32(text):08x}{len(text):08x}"


def _devices(conf: Conf, kind: str) -> list[dict[str, Any]]:
    return [device for device in conf.get("devices", ()) if device.get("type") == kind]


def _said(device: Conf) -> Mapping[str, Any]:
    """The specParams of a device. Callers may say nothing, or that there is nothing to say with empty text."""
    return device.get("specParams") or {}


def _figure(value: float) -> str:
    return f"{value:.2f}"


def _display(conf: Conf) -> Stats:
    address = conf.get("displayIp", "0")
    ports = [(device, device.get("port", -1), device.get("tlsPort", -1)) for device in _devices(conf, "graphics")]
    return {
        "displayType": conf.get("display", ""),
        "displayPort": conf.get("displayPort", -1),
        "displaySecurePort": conf.get("displaySecurePort", -1),
        "displayIp": address,
        "displayInfo": [
            {"type": device.get("device", ""), "port": str(port), "tlsPort": str(secure), "ipAddress": address}
            for device, port, secure in ports
        ],
    }


def _processor(conf: Conf, sample: Sample | None, previous: Sample | None, per_second: float) -> Stats:
    """Percentages are of one processor, so that they add up over the guest's."""
    user = system = 0.0
    if sample and previous:
        percent = per_second * 100 / 1e9
        system = max(0, sample.system - previous.system) * percent
        user = max(0, sample.cpu - previous.cpu) * percent - system
    return {
        "cpuUser": _figure(max(0.0, user)),
        "cpuSys": _figure(system),
        "cpuUsage": str(sample.cpu if sample else 0),
        "vcpuCount": str(sample.vcpus if sample and sample.vcpus else conf.get("smp", 1)),
    }


def _job(job: BlockJob) -> Stats:
    return {
        "id": job.job_id,
        "jobType": "block",
        "blockJobType": job.kind,
        "bandwidth": job.bandwidth,
        "cur": str(job.cur),
        "end": str(job.end),
        "imgUUID": job.image,
    }


def _balloon(conf: Conf, sample: Sample | None) -> Stats:
    balloon = next(iter(_devices(conf, "balloon")), None)
    if balloon is None or _said(balloon).get("model") == "none":
        return {}
    now = str(sample.balloon if sample else 0)
    return {
        "balloon_max": str(sample.balloon_max if sample else 0),
        "balloon_min": str(int(float(conf.get("memGuaranteedSize", 0))) << 10),
        "balloon_cur": now,
        "balloon_target": str(conf.get("balloonTarget", now)),
    }


def _network(conf: Conf, sample: Sample | None, previous: Sample | None, per_second: float) -> Stats:
    nics = {nic["name"]: nic for nic in _devices(conf, "interface") if nic.get("name")}
    counted = sample.nics if sample else {}
    before = previous.nics if previous else {}
    taken = sample.taken if sample else 0.0
    return {
        name: _nic(name, nics.get(name, {}), taken, counted.get(name), before.get(name), per_second)
        for name in {**nics, **counted}
    }


def _nic(
    name: str, nic: Conf, taken: float, counted: list[int] | None, before: list[int] | None, per_second: float
) -> Stats:
    received, rx_errors, rx_dropped, sent, tx_errors, tx_dropped = counted or [0] * len(_NIC)
    rate = _rates(counted, before, per_second)
    speed = _SLOW_NICS.get(str(nic.get("nicModel")), 1000)
    percent = 8 * 100 / (speed * 1e6)
    return {
        "name": name,
        "macAddr": nic.get("macAddr", ""),
        "speed": str(speed),
        "state": "unknown",
        "rxErrors": str(rx_errors),
        "rxDropped": str(rx_dropped),
        "txErrors": str(tx_errors),
        "txDropped": str(tx_dropped),
        "rxRate": _figure(min(100.0, rate(0) * percent)),
        "txRate": _figure(min(100.0, rate(3) * percent)),
        "rx": str(received),
        "tx": str(sent),
        "sampleTime": taken,
    }


def _disks(conf: Conf, sample: Sample | None, previous: Sample | None, per_second: float) -> Stats:
    disks = {disk["name"]: disk for disk in _devices(conf, "disk") if disk.get("name")}
    counted = sample.disks if sample else {}
    before = previous.disks if previous else {}
    return {
        name: _disk(disks.get(name, {}), counted.get(name), before.get(name), per_second)
        for name in {**disks, **counted}
    }


def _disk(disk: Conf, counted: list[int] | None, before: list[int] | None, per_second: float) -> Stats:
    reads, read, _, writes, written, *_ = counted or [0] * len(_DISK)
    rate = _rates(counted, before, per_second)

    def latency(requests: int, times: int) -> str:
        """ns that one request took."""
        return str(int(rate(times) / rate(requests))) if rate(requests) else "0"

    identity = {"lunGUID": disk["GUID"]} if disk.get("GUID") else {"imageID": disk.get("imageID", "")}
    return {
        **identity,
        **sizes(disk, counted),
        "readRate": _figure(rate(1)),
        "writeRate": _figure(rate(4)),
        "readLatency": latency(0, 2),
        "writeLatency": latency(3, 5),
        "flushLatency": latency(6, 7),
        "readOps": str(reads),
        "writeOps": str(writes),
        "readBytes": str(read),
        "writtenBytes": str(written),
    }


def sizes(disk: Conf, counted: list[int] | None) -> Stats:
    """Return the keys truesize and apparentsize of a disk, by its counters in a sample: bytes, as text, as far as known."""
    capacity, physical = counted[-2:] if counted else (0, 0)
    length = capacity if disk.get("format", "raw") == "raw" else physical
    return {
        "truesize": str(physical or disk.get("truesize") or 0),
        "apparentsize": str(length or disk.get("apparentsize") or 0),
    }


def _io_tune(disk: Conf) -> Stats:
    return {"name": disk.get("name", ""), "path": disk.get("path", ""), "ioTune": _said(disk)["ioTune"]}


def _rates(counted: list[int] | None, before: list[int] | None, per_second: float) -> Callable[[int], float]:
    """How fast the counter at a position grows a second."""
    if counted is None or before is None:
        return lambda _: 0.0
    return lambda position: max(0, counted[position] - before[position]) * per_second
