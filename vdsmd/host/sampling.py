"""Sampling: reads the kernel's counters, and makes the answer of getVdsStats from two readings.

Percentages are over the time between the two. Those of the processors are of the whole machine and add up with the idle
part (time stolen by a hypervisor is in none of them); those of this daemon are of one processor.
"""

from __future__ import annotations

import os
import time
from typing import Any

from vdsmd.host.facts import Link, Sample, Shown
from vdsmd.host.files import Files
from vdsmd.host.links import NET, kinds, speed
from vdsmd.host.topology import memory, node_cpus, node_memory, nodes

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
KSM = "/sys/kernel/mm/ksm"
ASSUMED_SPEED = 1000
"""Mb/s of a link that does not tell its speed (virtual ones mostly), so that its rate is a percentage of something."""
FREE_ON = ("/tmp", "/var/log", "/var/log/core", "/var/run/vdsm/")
REMOTE = ("nfs", "cifs", "smb", "ceph", "gluster", "9p", "fuse", "afs", "lustre", "ocfs", "gfs")


def take(files: Files, shown: Shown) -> Sample:
    """Read all counters."""
    links = {name: _link(files, name, kind) for name, kind in kinds(files, shown).items()}
    return Sample(at=time.monotonic(), cpus=_cpus(files), own=_ticks(files, "self"), ksmd=_ksmd(files), links=links)


def statistics(files: Files, before: Sample, now: Sample) -> dict[str, Any]:
    """Return what getVdsStats answers, apart from what is known only at the moment of the answer."""
    seconds = max(now.at - before.at, 0.001)
    return {
        **_cpu_use(before.cpus.get("cpu"), now.cpus.get("cpu")),
        "cpuLoad": files.text("/proc/loadavg").partition(" ")[0] or "0.00",
        "cpuUserVdsmd": _percent(_grown(before.own, now.own, 0) / TICKS, seconds),
        "cpuSysVdsmd": _percent(_grown(before.own, now.own, 1) / TICKS, seconds),
        "cpuStatistics": _per_cpu(files, before, now),
        **_network(before, now, seconds),
        **_memory(files),
        "numaNodeMemFree": {str(node): _node_free(files, node) for node in nodes(files)},
        "thpState": _chosen(files.text("/sys/kernel/mm/transparent_hugepage/enabled")),
        "ksmState": files.number(f"{KSM}/run") == 1,
        "ksmPages": files.number(f"{KSM}/pages_to_scan"),
        "ksmCpu": _percent(max(0, now.ksmd - before.ksmd) / TICKS, seconds),
        "diskStats": _disk_stats(files),
        "bootTime": next((line[6:] for line in files.lines("/proc/stat") if line.startswith("btime ")), "0"),
    }


def _cpus(files: Files) -> dict[str, list[int]]:
    """Return [user, system, idle, all] in ticks, of each processor and of 'cpu', which is all of them."""
    found = {}
    for line in files.lines("/proc/stat"):
        name, *words = line.split()
        if name.startswith("cpu"):
            user, nice, system, idle, iowait, irq, softirq, steal = (list(map(int, words)) + [0] * 8)[:8]
            parts = [user + nice, system + irq + softirq, idle + iowait]
            found[name] = [*parts, sum(parts) + steal]
    return found


def _ticks(files: Files, pid: str) -> list[int]:
    """Return [user, system] ticks of a process, or zeros."""
    fields = files.text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return [int(fields[11]), int(fields[12])] if len(fields) > 12 else [0, 0]


def _ksmd(files: Files) -> int:
    """Return the ticks that the kernel's page merging thread has used. It is looked for only where merging is on."""
    if files.number(f"{KSM}/run") != 1:
        return 0
    pids = (name for name in files.names("/proc") if name.isdigit())
    return next((sum(_ticks(files, pid)) for pid in pids if files.text(f"/proc/{pid}/comm") == "ksmd"), 0)


def _link(files: Files, name: str, kind: str) -> Link:
    counters = f"{NET}/{name}/statistics"
    return Link(
        kind=kind,
        rx=files.number(f"{counters}/rx_bytes"),
        tx=files.number(f"{counters}/tx_bytes"),
        rx_dropped=files.number(f"{counters}/rx_dropped"),
        tx_dropped=files.number(f"{counters}/tx_dropped"),
        rx_errors=files.number(f"{counters}/rx_errors"),
        tx_errors=files.number(f"{counters}/tx_errors"),
        speed=speed(files, name),
        up=files.text(f"{NET}/{name}/operstate") != "down",
    )


def _cpu_use(before: list[int] | None, now: list[int] | None) -> dict[str, str]:
    """Return the shares of the time between two readings; of the time since boot when there was none before."""
    grown = [_grown(before, now, part) for part in range(4)]
    if not grown[3]:
        return {"cpuUser": "0.00", "cpuSys": "0.00", "cpuIdle": "100.00"}
    return {key: _percent(grown[part], grown[3]) for part, key in enumerate(("cpuUser", "cpuSys", "cpuIdle"))}


def _per_cpu(files: Files, before: Sample, now: Sample) -> dict[str, Any]:
    node_of = {cpu: node for node in nodes(files) for cpu in node_cpus(files, node)}
    return {
        name[3:]: {"nodeIndex": node_of.get(int(name[3:]), 0), **_cpu_use(before.cpus.get(name), counters)}
        for name, counters in now.cpus.items()
        if name != "cpu"
    }


def _network(before: Sample, now: Sample, seconds: float) -> dict[str, Any]:
    """Rates are percentages of the link's speed; the host's are of all its nics together."""
    stats = {}
    bits = [0.0, 0.0, 0.0]
    for name, link in now.links.items():
        old = before.links.get(name, link if before.links else Link())
        room = (link.speed or ASSUMED_SPEED) * 1e6 * seconds
        moved = [max(0, link.rx - old.rx) * 8, max(0, link.tx - old.tx) * 8]
        if link.kind == "nics":
            bits = [sum(pair) for pair in zip(bits, [*moved, room], strict=True)]
        stats[name] = _link_stats(name, link, now.at) | {
            "rxRate": _percent(moved[0], room),
            "txRate": _percent(moved[1], room),
        }
    return {
        "network": stats,
        "rxRate": _percent(bits[0], bits[2]),
        "txRate": _percent(bits[1], bits[2]),
        "rxDropped": str(sum(link.rx_dropped for link in now.links.values())),
        "txDropped": str(sum(link.tx_dropped for link in now.links.values())),
    }


def _link_stats(name: str, link: Link, at: float) -> dict[str, Any]:
    return {
        "name": name,
        "speed": str(link.speed or ASSUMED_SPEED),
        "state": "up" if link.up else "down",
        "rx": str(link.rx),
        "tx": str(link.tx),
        "rxDropped": str(link.rx_dropped),
        "txDropped": str(link.tx_dropped),
        "rxErrors": str(link.rx_errors),
        "txErrors": str(link.tx_errors),
        "sampleTime": at,
    }


def _memory(files: Files) -> dict[str, Any]:
    """Free counts what the kernel can give back at once (buffers and cache); shared is what page merging holds together."""
    known = memory(files)
    total = known.get("MemTotal", 0)
    available = known.get("MemAvailable", 0)
    free = sum(known.get(key, 0) for key in ("MemFree", "Buffers", "Cached"))
    return {
        "memUsed": str(round(100 * (total - available) / total) if total else 0),
        "anonHugePages": str(known.get("AnonHugePages", 0) // 1024),
        "memAvailable": available // 1024,
        "memFree": free // 1024,
        "memShared": files.number(f"{KSM}/pages_sharing") * PAGE_KIB // 1024,
        "swapTotal": known.get("SwapTotal", 0) // 1024,
        "swapFree": known.get("SwapFree", 0) // 1024,
    }


def _node_free(files: Files, node: int) -> dict[str, int]:
    known = node_memory(files, node)
    total, free = known.get("MemTotal", 0), known.get("MemFree", 0)
    return {"memFree": free // 1024, "memPercent": round(100 * (total - free) / total) if total else 0}


def _disk_stats(files: Files) -> dict[str, dict[str, str]]:
    """Of a folder that is not there, this tells how much room there is where it would be."""
    local = [path for path in FREE_ON if _is_local(files, path)]
    return {path: {"free": str(_free_mib(files, _nearest(files, path)))} for path in local}


def _nearest(files: Files, path: str) -> str:
    while not files.exists(path) and path.strip("/"):
        path = os.path.dirname(path.rstrip("/"))
    return path


def _free_mib(files: Files, path: str) -> int:
    room = os.statvfs(files.path(path))
    return room.f_bavail * room.f_frsize // (1 << 20)


def _is_local(files: Files, path: str) -> bool:
    """Say whether path lies on a file system of this machine. One across a network may hang us, so it is not asked."""
    mounts = [line.split() for line in files.lines("/proc/self/mounts")]
    over = [words for words in mounts if len(words) > 2 and f"{path}/".startswith(f"{words[1].rstrip('/')}/")]
    kind = max(reversed(over), key=lambda words: len(words[1]))[2] if over else ""
    return not kind.startswith(REMOTE)


def _chosen(text: str) -> str:
    """Return the bracketed word of a kernel's choice: 'always [madvise] never' is madvise."""
    return text.partition("[")[2].partition("]")[0] or "never"


def _grown(before: list[int] | None, now: list[int] | None, part: int) -> int:
    """Return by how much one counter has grown. Without a reading before, it counts from zero."""
    return max(0, now[part] - (before[part] if before else 0)) if now else 0


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole if whole else 0:.2f}"
