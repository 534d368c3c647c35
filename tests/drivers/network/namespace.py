"""Network namespaces for tests: a thread with a network of its own, in which nothing of this host's is seen or touched.

It promises that all of it is gone when the thread ends: the kernel removes the devices of a namespace that nobody is in.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def inside(work: Callable[[], None]) -> None:
    """Run `work()` in a new network namespace. Only the calling thread of it, and processes that it starts, are in there."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if LIBC.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            ip("link set lo up")
            work()
        except BaseException as error:
            # The edge of the thread: whatever it is, pytest is to see it.
            raised.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def ip(command: str) -> str:
    """Run `ip` with the words of the command."""
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {command}: {done.stderr}"
    return done.stdout


def nics(*names: str) -> None:
    """Make nics, each the end of a cable whose other end is called `<name>x` and is up."""
    for name in names:
        ip(f"link add {name} type veth peer name {name}x")
        ip(f"link set {name}x up")


CHANGING = (
    "ifindex",
    "link_index",
    "valid_life_time",
    "preferred_life_time",
    "operstate",
    "linkmode",
    "min_mtu",
    "max_mtu",
    "qdisc",
    "promiscuity",
    "allmulti",
)
"""What differs between two looks although nobody changed anything: numbers, lifetimes, what the cable says, and which slave
of a bond is the active one (it alone listens to everything)."""


def state(*without: str) -> dict[str, Any]:
    """Return all that `ip` tells of links, addresses, routes and rules, by what it is about, but for what changes by itself."""
    found: dict[str, Any] = {}
    for link in json.loads(ip("-d -j addr")):
        if link and link["ifname"] not in without:
            found[f"link {link['ifname']}"] = _link(link)
    for family in ("-4", "-6"):
        for route in json.loads(ip(f"-j {family} route show table all")):
            # What the local table says follows from the addresses, of IPv6 a moment later.
            ours = route.get("table") != "local" and not route["dst"].startswith(("fe80:", "ff00:"))
            if ours and route.get("dev") not in without:
                found[f"route {route}"] = "linkdown"  # which says whether there is a cable
        found |= {f"rule {family} {rule}": "" for rule in json.loads(ip(f"-j {family} rule show"))}
    return {key.replace("'linkdown'", ""): value for key, value in found.items()}


def different(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what `state` tells differently."""
    keys = sorted(before.keys() | now.keys())
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _link(told: dict[str, Any]) -> dict[str, Any]:
    info = told.get("linkinfo", {})
    kept = {key: value for key, value in told.items() if key not in (*CHANGING, "linkinfo", "flags", "addr_info")}
    addresses = [
        {key: value for key, value in each.items() if key not in (*CHANGING, "tentative", "dadfailed")}
        for each in told["addr_info"]
        if each["scope"] != "link"
    ]
    return kept | {
        "kind": info.get("info_kind"),
        "stp": info.get("info_data", {}).get("stp_state"),
        "up": "UP" in told["flags"],
        "addresses": addresses,
    }
