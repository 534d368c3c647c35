"""What networks are to this daemon: the configuration that is wanted, and the steps that lead to it.

It promises that both are plain data: what is stored, handed on over a re-exec, shown to people and tested without a kernel is
one and the same. Only what the daemon needs at its start is here.
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

from state.records import Migration, Part, Record

LONGEST_NAME = 15
"""Characters that the kernel allows in a device's name."""


class Curve(Part, frozen=True):
    """How fast something may be: `m1` bits a second for `d` microseconds, then `m2`."""

    m2: int
    m1: int = 0
    d: int = 0


class Qos(Part, frozen=True):
    """What a network gets of its nic or bond to send: a share of what is left, so much in any case, so much at most."""

    ls: Curve
    rt: Curve | None = None
    ul: Curve | None = None


class Rate(Part, frozen=True):
    """How much of a network's traffic may pass: so many KiB a second, and KiB at once. `peak` is kept for those who ask."""

    average: int
    peak: int = 0
    burst: int = 0


class Network(Part, frozen=True):
    """One network. On a nic, on a bond, or (bridged only) on neither; on a VLAN of it when `vlan` is not None."""

    nic: str = ""
    bond: str = ""
    vlan: int | None = None
    bridged: bool = True
    mtu: int = 0
    """0: as its nic was found."""
    stp: bool = False
    address: str = ""
    """With its prefix length: '192.0.2.1/24'."""
    gateway: str = ""
    dhcp: bool = False
    address6: str = ""
    gateway6: str = ""
    autoconf6: bool = False
    default_route: bool = False
    custom: dict[str, str] = {}
    """Properties for hooks."""
    host_qos: Qos | None = None
    dhcp6: bool = False
    inbound: Rate | None = None
    outbound: Rate | None = None

    @property
    def base(self) -> str:
        """The nic or bond that it is on, '' for none."""
        return self.nic or self.bond

    @property
    def port(self) -> str:
        """The device that carries its frames to the outside, '' for none."""
        return self.base if self.vlan is None else vlan_name(self.base, self.vlan)


class Bond(Part, frozen=True):
    nics: tuple[str, ...]
    options: dict[str, str] = {}
    """By the kernel's names, `mode` by its name."""


class Found(Part, frozen=True):
    """How a nic was before the first network or bond of ours came to use it; it is given back like this."""

    mtu: int
    up: bool
    autoconf6: bool = False
    advertised6: bool = False
    """Whether router advertisements gave it routes."""


class Configuration(Part, frozen=True):
    """All networks and bonds of ours. What is not in it is not ours, and is not touched."""

    networks: dict[str, Network] = {}
    bonds: dict[str, Bond] = {}
    found: dict[str, Found] = {}
    """By the names of nics and of bonds that others have made."""


class Act(Part, frozen=True):
    """One action of the helper."""

    action: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{name}={_told(value)}" for name, value in self.arguments.items() if value not in ("", None))
        return f"{self.action} {told}"


class Step(Part, frozen=True):
    """What is done, and what undoes it. Both may be done twice: the second time changes nothing."""

    do: Act
    undo: tuple[Act, ...] = ()


NEWEST = 2
"""The version of the records that have configurations in them. 2 has DHCPv6 and rates of networks, which 1 leaves out."""


class NetworkRecord(Record):
    """What the next run must know at once. The files under lib_dir are the truth about the rest."""

    version: ClassVar[int] = NEWEST
    migrations: ClassVar[dict[int, Migration]] = {1: dict}

    running: Configuration = Configuration()
    safe: Configuration = Configuration()
    drift: list[str] = []


def vlan_name(base: str, tag: int) -> str:
    """Return the name of the device for a VLAN of `base`: 'eth0.5', or something shorter that is as good."""
    name = f"{base}.{tag}"
    return name if len(name) <= LONGEST_NAME else f"v{zlib.crc32(base.encode()):08x}.{tag}"


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return str(value)
