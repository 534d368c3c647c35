"""Links: the network devices of this host, as engines see them.

There are four kinds: nics, bonds, vlans and bridges. What belongs to a guest (its taps), loopback, and what the operator
hides is of no kind, and is not reported.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from fnmatch import fnmatch
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import Any

import msgspec
import psutil

from vdsmd.host.facts import Shown
from vdsmd.host.files import Files

NET = "/sys/class/net"
KINDS = ("nics", "bondings", "vlans", "bridges")


class Addresses(msgspec.Struct, kw_only=True):
    """The addresses of one device, with prefix lengths: '192.0.2.1/24'. Link-local ones of IPv6 are among them."""

    v4: list[str] = []
    v6: list[str] = []


def kinds(files: Files, shown: Shown) -> dict[str, str]:
    """Return the kind of each device that is shown, by device name."""
    vlans = set(files.names("/proc/net/vlan")) - {"config"}
    found = {}
    for name in files.names(NET):
        kind, hidden = _kind(files, name, vlans, shown)
        if kind and not _matches(name, hidden):
            found[name] = kind
    return found


def describe(files: Files, shown: Shown, addresses: dict[str, Addresses]) -> dict[str, dict[str, Any]]:
    """Return the keys nics, bondings, vlans and bridges of getVdsCapabilities."""
    gateways = default_gateways(files)
    answer: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for name, kind in kinds(files, shown).items():
        common = _common(files, name, addresses.get(name, Addresses()), gateways.get(name, ""))
        answer[kind][name] = common | OWN_KEYS[kind](files, name)
    return answer


def default_gateways(files: Files) -> dict[str, str]:
    """Return the IPv4 default gateway of each device that has one, from /proc/net/route."""
    found: dict[str, str] = {}
    for line in files.lines("/proc/net/route")[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000" and words[2] != "00000000":
            found.setdefault(words[0], socket.inet_ntoa(struct.pack("=L", int(words[2], 16))))
    return found


def current_addresses() -> dict[str, Addresses]:
    """Ask the kernel for all addresses of all devices."""
    found: dict[str, Addresses] = {}
    for name, entries in psutil.net_if_addrs().items():
        mine = found.setdefault(name, Addresses())
        for entry in entries:
            if entry.family == socket.AF_INET:
                mine.v4.append(ip_interface(f"{entry.address}/{entry.netmask or 32}").with_prefixlen)
            elif entry.family == socket.AF_INET6:
                mask = int(IPv6Address(entry.netmask)) if entry.netmask else -1
                mine.v6.append(f"{entry.address.partition('%')[0]}/{(mask & (1 << 128) - 1).bit_count()}")
    return found


def our_end(client: str) -> str:
    """Return the address of ours from which the kernel answers `client`, '' when no way leads there."""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((client, 9))  # which sends nothing
            return str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return ""


def last_client(
    addresses: dict[str, Addresses], client: str, our_end: Callable[[str], str] = our_end
) -> dict[str, str]:
    """Return the keys lastClient and lastClientIface: an address, and the device with the address of ours that it sees us at
    ('' if that is not known)."""
    address = client.rpartition(":")[0]
    try:
        found = ip_address(address)
    except ValueError:
        return {"lastClient": "", "lastClientIface": ""}
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    ours = our_end(str(found))
    device = (
        name for name, mine in addresses.items() if any(ours == str(ip_interface(a).ip) for a in mine.v4 + mine.v6)
    )
    return {"lastClient": str(found), "lastClientIface": next(device, "")}


def speed(files: Files, name: str) -> int:
    """Return the link's speed in Mb/s, or 0 when it has none or does not tell."""
    return max(0, files.number(f"{NET}/{name}/speed"))


def _kind(files: Files, name: str, vlans: set[str], shown: Shown) -> tuple[str, tuple[str, ...]]:
    where = f"{NET}/{name}"
    if files.exists(f"{where}/bonding"):
        return "bondings", shown.hidden_bonds
    if files.exists(f"{where}/bridge"):
        return "bridges", (";vdsmdummy;",)
    if name in vlans:
        return "vlans", shown.hidden_vlans
    if files.exists(f"{where}/device") or _matches(name, shown.fake_nics):
        return "nics", shown.hidden_nics
    return "", ()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _common(files: Files, name: str, addresses: Addresses, gateway: str) -> dict[str, Any]:
    first = ip_interface(addresses.v4[0]) if addresses.v4 else None
    return {
        "addr": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "ipv4addrs": addresses.v4,
        "ipv6addrs": addresses.v6,
        "gateway": gateway,
        "ipv6gateway": "::",
        "mtu": str(files.number(f"{NET}/{name}/mtu")),
        "dhcpv4": False,
        "dhcpv6": False,
        "cfg": {},
    }


def _nic(files: Files, name: str) -> dict[str, Any]:
    return {"speed": speed(files, name), "hwaddr": files.text(f"{NET}/{name}/address")}


def _bond(files: Files, name: str) -> dict[str, Any]:
    where = f"{NET}/{name}/bonding"
    return {
        "hwaddr": files.text(f"{NET}/{name}/address"),
        "slaves": files.text(f"{where}/slaves").split(),
        "active_slave": files.text(f"{where}/active_slave"),
        "opts": {"mode": files.text(f"{where}/mode").partition(" ")[2], "miimon": files.text(f"{where}/miimon")},
    }


def _vlan(files: Files, name: str) -> dict[str, Any]:
    told = files.pairs(f"/proc/net/vlan/{name}", ":")
    below = told.get("Device", "") or name.partition(".")[0]
    tag = next(
        (line.partition("VID:")[2].split()[0] for line in files.lines(f"/proc/net/vlan/{name}") if "VID:" in line), "0"
    )
    return {"iface": below, "vlanid": int(tag)}


def _bridge(files: Files, name: str) -> dict[str, Any]:
    stp = files.number(f"{NET}/{name}/bridge/stp_state")
    return {"ports": files.names(f"{NET}/{name}/brif"), "stp": "on" if stp else "off", "bridged": True, "opts": {}}


OWN_KEYS = {"nics": _nic, "bondings": _bond, "vlans": _vlan, "bridges": _bridge}
