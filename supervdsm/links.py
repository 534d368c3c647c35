"""Links: the kernel's network devices, reached over netlink, for the actions that change them.

It promises that an action that finds its work done does nothing, that what goes wrong leaves as a meaning of
`supervdsm.errors`, and that only links which we have made are ever removed: the kernel keeps them in a group of ours.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, NamedTuple

from supervdsm.errors import ActionError, AlreadyExists, Busy, Failed, Invalid, NotAllowed, NotFound, Unsupported

OURS = 30308
"""The group of links that we have made. It is given in the same message that makes them, so that none is ever without."""
OUR_TABLES = range(0x76000000, 0x77000000)
"""The numbers of tables of routes that we fill."""
NAME = re.compile(r"[^\s/:%]{1,15}")
NO_NAMES = (".", "..", "all", "default")
"""What the kernel gives no device for a name: below /proc/sys/net these are directories of all devices."""

MEANT: dict[int, type[ActionError]] = {
    errno.ENODEV: NotFound,
    errno.ENXIO: NotFound,
    errno.ENOENT: NotFound,
    errno.ESRCH: NotFound,
    errno.EADDRNOTAVAIL: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EBUSY: Busy,
    errno.EPERM: NotAllowed,
    errno.EINVAL: Invalid,
    errno.ERANGE: Invalid,
    errno.ENETUNREACH: Invalid,
    errno.EHOSTUNREACH: Invalid,
    errno.EOPNOTSUPP: Unsupported,
    errno.EAFNOSUPPORT: Unsupported,
}


class Found(NamedTuple):
    """What an action wants to know of a link. `kind` is the kernel's word, '' for a physical one."""

    name: str
    number: int
    kind: str
    group: int
    master: int
    up: bool
    mtu: int


class Session:
    """One conversation with the kernel."""

    def __init__(self, route: Any) -> None:
        self.route = route

    def find(self, name: str) -> Found | None:
        """Return the link, None when there is none. Raises Invalid for what cannot be a name."""
        try:
            messages = self.route.link("get", ifname=checked(name))
        except self.error as error:
            if error.code in (errno.ENODEV, errno.ENOENT):
                return None
            raise
        if not messages:
            return None
        told = messages[0]
        info = told.get_attr("IFLA_LINKINFO")
        return Found(
            name=name,
            number=told["index"],
            kind=(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
            group=told.get_attr("IFLA_GROUP") or 0,
            master=told.get_attr("IFLA_MASTER") or 0,
            up=bool(told["flags"] & 1),
            mtu=told.get_attr("IFLA_MTU"),
        )

    def must(self, name: str, *kinds: str) -> Found:
        """Return the link. Raises NotFound, and NotAllowed when it is of none of these kinds."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"there is no network device {name}")
        if kinds and found.kind not in kinds:
            raise NotAllowed(f"{name} is {found.kind or 'a nic'}, not {' or '.join(kinds)}")
        return found

    def make(self, name: str, kind: str, **given: Any) -> None:
        """Make a link of ours. Raises AlreadyExists."""
        self.route.link("add", ifname=checked(name), kind=kind, group=OURS, **given)

    def addresses(self, link: Found) -> list[Any]:
        """Return the messages about its addresses."""
        return list(self.route.get_addr(index=link.number))

    @property
    def error(self) -> Any:
        """What the kernel's refusal is raised as, within a session."""
        from pyroute2.netlink.exceptions import NetlinkError

        return NetlinkError


@contextmanager
def session(what: str) -> Iterator[Session]:
    """Give a conversation with the kernel; `what` begins the text of an error."""
    # pyroute2 takes longer to import than most actions take, and most hosts' networks rarely change.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            yield Session(route)
    except NetlinkError as error:
        raise MEANT.get(error.code, Failed)(f"{what}: {error.args[-1] if error.args else error}") from error
    except OSError as error:
        raise MEANT.get(error.errno or 0, Failed)(f"{what}: {error.strerror}") from error


def checked(name: str) -> str:
    """Return a name that a link can have. Raises Invalid."""
    if not NAME.fullmatch(name) or name in NO_NAMES or not name.isprintable():
        raise Invalid(f"{name!r} cannot be the name of a network device")
    return name


def interface(text: str) -> IPv4Interface | IPv6Interface:
    """Return an address with its prefix length. Raises Invalid."""
    if "/" not in text:
        raise Invalid(f"{text!r} has no prefix length")
    try:
        return ip_interface(text)
    except ValueError as error:
        raise Invalid(str(error)) from None
