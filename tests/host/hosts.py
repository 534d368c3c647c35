"""Hosts laid out as files: what the kernel of another machine would tell."""

from __future__ import annotations

from pathlib import Path

from vdsmd.host.files import Files

CPU = """\
processor\t: {number}
model name\t: Model of a test
cpu MHz\t\t: 2500.000
physical id\t: {socket}
core id\t\t: {core}
flags\t\t: fpu sse2 vmx
"""
MEMINFO = """\
MemTotal:        8388608 kB
MemFree:         1048576 kB
MemAvailable:    4194304 kB
Buffers:          524288 kB
Cached:           524288 kB
SwapTotal:       2097152 kB
SwapFree:        1048576 kB
AnonHugePages:    204800 kB
"""
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
br0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
br0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


class Layout:
    """A root directory that is filled with files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = Files(str(root))

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def make(self, path: str) -> None:
        (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def device(self, name: str, *, rx: int = 0, tx: int = 0, speed: int | str = -1, state: str = "up") -> None:
        where = f"/sys/class/net/{name}"
        given = {"mtu": "1500", "address": f"02:00:00:00:00:0{len(name)}", "speed": str(speed), "operstate": state}
        counters = {"rx_bytes": rx, "tx_bytes": tx, "rx_dropped": 1, "tx_dropped": 2, "rx_errors": 3, "tx_errors": 4}
        for key, value in given.items():
            self.write(f"{where}/{key}", f"{value}\n")
        for key, number in counters.items():
            self.write(f"{where}/statistics/{key}", f"{number}\n")

    def nic(self, name: str, *, rx: int = 0, tx: int = 0, speed: int | str = 1000, state: str = "up") -> None:
        self.device(name, rx=rx, tx=tx, speed=speed, state=state)
        self.make(f"/sys/class/net/{name}/device")


def server(root: Path) -> Layout:
    """Return a host with two sockets of two cores each with two threads, two memory nodes, and every kind of device."""
    host = Layout(root)
    cpus = [CPU.format(number=number, socket=number // 4, core=number // 2 % 2) for number in range(8)]
    host.write("/proc/cpuinfo", "\n".join(cpus))
    host.write("/sys/devices/system/cpu/online", "0-7\n")
    host.write("/proc/meminfo", MEMINFO)
    host.write("/proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 100 0 100 800 0 0 0 0 0 0\nbtime 1700000000\n")
    host.write("/proc/loadavg", "1.25 1.00 0.50 1/100 4242\n")
    for node in (0, 1):
        where = f"/sys/devices/system/node/node{node}"
        host.write(f"{where}/cpulist", f"{4 * node}-{4 * node + 3}\n")
        host.write(f"{where}/distance", "10 20\n" if node == 0 else "20 10\n")
        host.write(f"{where}/meminfo", f"Node {node} MemTotal: 4194304 kB\nNode {node} MemFree: 1048576 kB\n")
    host.write("/proc/sys/kernel/numa_balancing", "1\n")
    host.nic("ens1")
    host.nic("ens2", state="down")
    host.nic("wlan0")
    host.device("lo")
    host.device("vnet0")
    host.device("bond0")
    host.write("/sys/class/net/bond0/bonding/slaves", "ens1 ens2\n")
    host.write("/sys/class/net/bond0/bonding/active_slave", "ens1\n")
    host.write("/sys/class/net/bond0/bonding/mode", "active-backup 1\n")
    host.write("/sys/class/net/bond0/bonding/miimon", "100\n")
    host.device("bond0.7")
    host.write("/proc/net/vlan/config", "VLAN Dev name | VLAN ID\n")
    host.write("/proc/net/vlan/bond0.7", "bond0.7  VID: 7\t REORDER_HDR: 1\nDevice: bond0\n")
    host.device("br0")
    host.write("/sys/class/net/br0/bridge/stp_state", "0\n")
    host.make("/sys/class/net/br0/brif/bond0.7")
    host.make("/sys/class/net/br0/brif/vnet0")
    host.write("/proc/net/route", ROUTES)
    return host
