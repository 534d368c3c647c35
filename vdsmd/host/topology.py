"""Topology: the processors, memory nodes and memory of this host."""

from __future__ import annotations

from typing import Any

from vdsmd.host.files import Files, cpu_list

NODES = "/sys/devices/system/node"


def memory(files: Files) -> dict[str, int]:
    """Return /proc/meminfo, in KiB."""
    found: dict[str, int] = {}
    for key, value in files.pairs("/proc/meminfo", ":").items():
        amount = value.removesuffix(" kB")
        if amount.isdigit():
            found[key] = int(amount)
    return found


def processors(files: Files) -> list[dict[str, str]]:
    """Return one struct per online logical processor, with the keys of /proc/cpuinfo."""
    blocks = files.text("/proc/cpuinfo").split("\n\n")
    split = [[line.partition(":") for line in block.splitlines()] for block in blocks]
    return [{key.strip(): value.strip() for key, _, value in lines} for lines in split if lines]


def flags(files: Files) -> list[str]:
    """Return what the processors can do, in the kernel's words."""
    first = next(iter(processors(files)), {})
    return first.get("flags", first.get("Features", "")).split()


def cpu(files: Files, *, models: list[str], threads_as_cores: bool = False) -> dict[str, Any]:
    """Return the keys of getVdsCapabilities that describe the processors. `models`: what a guest's CPU may be called."""
    found = processors(files)
    first = found[0] if found else {}
    sockets = {each.get("physical id", "0") for each in found}
    cores = {(each.get("physical id", "0"), each.get("core id", each.get("processor", ""))) for each in found}
    online = cpu_list(files.text("/sys/devices/system/cpu/online")) or range(len(found))
    return {
        "cpuThreads": str(len(found)),
        "cpuCores": str(len(found if threads_as_cores else cores)),
        "cpuSockets": str(len(sockets)),
        "onlineCpus": ",".join(map(str, online)),
        "cpuSpeed": first.get("cpu MHz", "0"),
        "cpuModel": first.get("model name", "unknown"),
        "cpuFlags": ",".join(flags(files) + [f"model_{model}" for model in models]),
    }


def nodes(files: Files) -> list[int]:
    names = files.names(NODES)
    return sorted(int(name[4:]) for name in names if name.startswith("node") and name[4:].isdigit())


def node_memory(files: Files, node: int) -> dict[str, int]:
    """Return the meminfo of one memory node, in KiB."""
    found: dict[str, int] = {}
    for line in files.lines(f"{NODES}/node{node}/meminfo"):
        words = line.split()
        if len(words) >= 4 and words[3].isdigit():
            found[words[2].rstrip(":")] = int(words[3])
    return found


def node_cpus(files: Files, node: int) -> list[int]:
    return cpu_list(files.text(f"{NODES}/node{node}/cpulist"))


def numa(files: Files) -> dict[str, Any]:
    """Return the keys of getVdsCapabilities that describe the memory nodes."""
    balancing = {"0": 0, "1": 1}
    known = nodes(files)
    return {
        "numaNodes": {
            str(node): {
                "cpus": node_cpus(files, node),
                "totalMemory": str(node_memory(files, node).get("MemTotal", 0) // 1024),
            }
            for node in known
        },
        "numaNodeDistance": {
            str(node): [int(word) for word in files.text(f"{NODES}/node{node}/distance").split()] for node in known
        },
        "autoNumaBalancing": balancing.get(files.text("/proc/sys/kernel/numa_balancing"), 2),
    }
