"""Actions on any network device: up and down, its MTU, what it is attached to, and the removal of what we have made.

They promise that whatever is done twice is as if done once.
"""

from __future__ import annotations

import os

from supervdsm.errors import NotAllowed
from supervdsm.links import OURS, Found, Session, checked, session
from supervdsm.ports import kinds_of_ports
from supervdsm.registry import Context, action

MASTERS = ("bridge", "bond")
MADE = ("bridge", "vlan", "bond")


@action("link.up")
def up(_context: Context, link: str) -> None:
    """Have the link carry traffic."""
    _set_state(link, "up")


@action("link.down")
def down(_context: Context, link: str) -> None:
    _set_state(link, "down")


@action("link.mtu")
def set_mtu(_context: Context, link: str, mtu: int) -> None:
    with session(f"MTU {mtu} of {link}") as kernel:
        found = kernel.must(link)
        if found.mtu != mtu:
            kernel.route.link("set", index=found.number, mtu=mtu)


@action("link.attach")
def attach(_context: Context, link: str, master: str) -> None:
    """Make the link a port of a bridge, or a slave of a bond."""
    with session(f"attaching {link} to {master}") as kernel:
        above = kernel.must(master, *MASTERS)
        port = kernel.must(link)
        if above.group == OURS and port.master != above.number:
            _pass_address_on(kernel, port, above)
        attach_to(kernel, port, above)


@action("link.detach")
def detach(_context: Context, link: str, master: str) -> None:
    """Undo `link.attach`. A link that belongs to another master is left alone."""
    with session(f"detaching {link} from {master}") as kernel:
        found, above = kernel.find(link), kernel.find(master)
        if found and above and found.master == above.number:
            kernel.route.link("set", index=found.number, master=0)


@action("link.delete")
def delete(_context: Context, link: str) -> None:
    """Remove a bridge, VLAN or bond that we have made. Nothing happens when there is none."""
    with session(f"removing {link}") as kernel:
        found = kernel.find(link)
        if found is None:
            return
        if found.group != OURS or found.kind not in MADE:
            raise NotAllowed(f"{link} was not made by us")
        kernel.route.link("del", index=found.number)


@action("link.autoconf")
def set_autoconf(_context: Context, link: str, on: bool, routes: bool = False) -> None:
    """Have router advertisements give the link addresses and routes, or `routes` alone, or nothing."""
    for setting, wanted in (("accept_ra", on or routes), ("autoconf", on)):
        path = f"/proc/sys/net/ipv6/conf/{checked(link)}/{setting}"
        if os.path.exists(path):  # or there is no IPv6 here, and so nothing to forbid
            with open(path, "w", encoding="ascii") as file:
                file.write("1" if wanted else "0")


def attach_to(kernel: Session, port: Found, master: Found) -> None:
    """A bond takes only links that are down, and brings them up itself."""
    if port.master == master.number:
        return
    if master.kind == "bond":
        kernel.route.link("set", index=port.number, state="down")
    kernel.route.link("set", index=port.number, master=master.number)


def _pass_address_on(kernel: Session, port: Found, master: Found) -> None:
    """Have a bridge or bond of ours take the address of its first port, for good. The kernel would do so by itself, but not
    once udev has given it one by its own lights, a moment after it was made (MACAddressPolicy in systemd.link(5)).
    Taps of guests do not count."""
    if port.kind == "tun":
        return
    if all(kind == "tun" for kind in kinds_of_ports(master.number)):
        told = kernel.route.link("get", index=port.number)[0]
        if port.kind == "vlan":
            # Until it is up, it has the address that the link below had when it was made.
            told = kernel.route.link("get", index=told.get_attr("IFLA_LINK"))[0]
        kernel.route.link("set", index=master.number, address=told.get_attr("IFLA_ADDRESS"))


def _set_state(link: str, state: str) -> None:
    with session(f"{link} {state}") as kernel:
        found = kernel.must(link)
        if found.up != (state == "up"):
            kernel.route.link("set", index=found.number, state=state)
