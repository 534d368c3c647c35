"""Actions on taps: what the network cards of guests are plugged into, when QEMU runs as an ordinary user.

They promise that a tap stays when nobody has it open and goes with all that it was given, that only the daemon's user can open
it, and that no device is touched whose name does not begin with `vd`: those are ours alone.
"""

from __future__ import annotations

import fcntl
import os
import struct

from supervdsm.actions import filter as filters
from supervdsm.actions import mirror
from supervdsm.actions.link import attach_to
from supervdsm.errors import AlreadyExists, Invalid, NotAllowed
from supervdsm.links import Session, checked, session
from supervdsm.registry import Context, action
from supervdsm.traffic import tc, tc_undo

PREFIX = "vd"
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
TAP, NO_INFO, WITH_VNET_HEADER = 0x0002, 0x1000, 0x4000
REQUEST = struct.Struct("16sH22x")
GREATEST_RATE = 2**22
"""KiB a second: 4 GiB."""
LEAST_BURST = 16
"""KiB: less is no room for what is sent to a guest at once."""


@action("tap.create")
def create(context: Context, name: str, bridge: str = "", mtu: int = 0, mac: str = "") -> None:
    """Make a tap that the daemon's user may open, attached to a bridge, up. One that exists is brought into that state.

    `mac` is the guest's: the tap gets it with a first byte of fe, so that a bridge never takes it for its own.
    """
    _check(name)
    with session(f"tap {name}") as kernel:
        above = kernel.must(bridge, "bridge") if bridge else None
        found = kernel.find(name)
        if found is not None and found.kind != "tun":
            raise AlreadyExists(f"{name} exists, and is no tap")
        if found is None:
            _make(name, context.uid)
        tap = kernel.must(name, "tun")
        given = {"mtu": mtu} if mtu else {}
        if mac:
            kernel.route.link("set", index=tap.number, address=f"fe{mac[2:]}")
        kernel.route.link("set", index=tap.number, state="up", **given)
        if above is not None:
            attach_to(kernel, tap, above)
        else:
            kernel.route.link("set", index=tap.number, master=0)


@action("tap.limit", slow=True)
def limit(_context: Context, name: str, rate: int, burst: int = 0) -> None:
    """Let no more than `rate` KiB a second, with `burst` KiB at once, reach the guest; 0 is for no such limit."""
    _check(name)
    if not (0 <= rate <= GREATEST_RATE and 0 <= burst <= GREATEST_RATE):
        raise Invalid(f"rate {rate}, burst {burst}: expected 0 to {GREATEST_RATE}")
    with session(f"limit of {name}") as kernel:
        kernel.must(name, "tun")
    if not rate:
        tc_undo("qdisc", "del", "dev", name, "root")
        return
    room = max(burst, LEAST_BURST, rate // 50)
    tc("qdisc", "replace", "dev", name, "root", "tbf", "rate", f"{rate}kibps", "burst", f"{room}kb", "latency", "50ms")


@action("tap.delete", slow=True)
def delete(context: Context, name: str) -> None:
    """Remove a tap, with its filter and the mirrors to it. Nothing happens when there is none."""
    _check(name)
    filters.forget(context, name)
    mirror.forget(context, name)
    with session(f"tap {name}") as kernel:
        if _is_tap(kernel, name):
            kernel.route.link("del", index=kernel.must(name).number)


def _check(name: str) -> None:
    if not checked(name).startswith(PREFIX):
        raise NotAllowed(f"{name}: the names of taps begin with {PREFIX}")


def _is_tap(kernel: Session, name: str) -> bool:
    found = kernel.find(name)
    if found is not None and found.kind != "tun":
        raise NotAllowed(f"{name} is no tap")
    return found is not None


def _make(name: str, uid: int) -> None:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, TUNSETIFF, REQUEST.pack(name.encode(), TAP | NO_INFO | WITH_VNET_HEADER))
        fcntl.ioctl(tun, TUNSETOWNER, uid)
        fcntl.ioctl(tun, TUNSETPERSIST, 1)
    finally:
        os.close(tun)
