"""What a guest tells of itself, whichever agent it has, in the words and kinds of the wire.

It promises values that the wire can carry, of bounded size, whatever a guest sends: text has no character that XML lacks, what
is too long is cut, and figures are text. Imported after the first answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

Scalar = str | int | float | None

LONGEST_TEXT = 256
MOST = 1024
"""Applications or mounts that are shown of a guest: what is shown is handed over at every exec."""
MOST_NICS = 128
MOST_ADDRESSES = 32
"""Of one kind, of one nic."""
LONGEST_ADDRESS = 64
MOST_FIGURES = 64
HIGHEST = 2**31 - 1

ALIVE = 120.0
"""Seconds after its last heartbeat during which an agent is believed to be there."""

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"

_WIRE = {"guest_ips": "guestIPs", "guest_fqdn": "guestFQDN", "guest_cpu_count": "guestCPUCount"}


def _wire_name(field: str) -> str:
    first, *others = field.split("_")
    return _WIRE.get(field) or first + "".join(word.capitalize() for word in others)


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    hw: str = ""
    inet: list[str] = []
    inet6: list[str] = []


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, as text."""

    path: str = ""
    total: str = ""
    used: str = ""
    fs: str = ""


class OsInfo(msgspec.Struct, frozen=True, kw_only=True):
    version: str = ""
    distribution: str = ""
    codename: str = ""
    arch: str = ""
    type: str = ""
    kernel: str = ""


class Timezone(msgspec.Struct, frozen=True, kw_only=True):
    """The offset from UTC is in minutes."""

    zone: str = ""
    offset: Annotated[int, msgspec.Meta(ge=-HIGHEST, le=HIGHEST)] = 0


class Told(msgspec.Struct, kw_only=True, omit_defaults=True, rename=_wire_name):
    """Facts about a guest, by their keys in the statistics. What was not told is UNSET, and not shown."""

    guest_name: str | UnsetType = UNSET
    guest_os: str | UnsetType = UNSET
    guest_fqdn: str | UnsetType = UNSET
    guest_ips: str | UnsetType = UNSET
    net_ifaces: list[Nic] | UnsetType = UNSET
    apps_list: list[str] | UnsetType = UNSET
    disks_usage: list[Mount] | UnsetType = UNSET
    memory_stats: dict[str, str] | UnsetType = UNSET
    guest_cpu_count: Annotated[int, msgspec.Meta(ge=-1, le=HIGHEST)] | UnsetType = UNSET
    guest_os_info: OsInfo | UnsetType = UNSET
    guest_timezone: Timezone | UnsetType = UNSET
    username: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    last_user: str | UnsetType = UNSET
    last_login: float | UnsetType = UNSET
    last_logout: float | UnsetType = UNSET


class Report(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the oVirt agent of a guest told, and when. Times of the monotonic clock, 0.0: never."""

    told: Told = msgspec.field(default_factory=Told)
    heard: float = 0.0
    heartbeat: float = 0.0
    free_ram: int = -1
    """MiB; -1 when it did not say."""
    api: int = 0
    """The version of the protocol that both sides have agreed on; 0 for agents that know of none."""


class Kept(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that is known of one guest and its agents, as it outlives an exec."""

    report: Report = msgspec.field(default_factory=Report)
    survey: Told = msgspec.field(default_factory=Told)
    """What QEMU's guest agent told."""
    surveyed: float = 0.0
    """When it last did, by the monotonic clock."""
    begun: bytes = b""
    """The line that has arrived in part."""
    skipping: bool = False
    """That line was too long: what is left of it is thrown away."""
    unsent: bytes = b""
    """What the guest has yet to take from us."""
    news: str = ""
    """What has happened to the guest that the oVirt agent has yet to be told ('' when there is nothing), and until when, by the
    monotonic clock, it is worth telling."""
    news_until: float = 0.0
    unwritten: bool = False
    """Whether it has told anything that lasts and is not written down yet (see `remembered`)."""


def statistics(kept: Kept, *, mem_size: int, now: float, patience: float) -> dict[str, Any]:
    """Return what is shown of a guest. The oVirt agent goes before QEMU's while it is there. What was true of one moment only,
    the use of memory, is shown for `patience` seconds. mem_size: MiB."""
    report = kept.report
    layers = [shown(kept.survey), shown(report.told)]
    if now - report.heartbeat > ALIVE:
        layers.reverse()
    stats = {**layers[0], **layers[1]}
    if not report.heard or now - report.heard > patience:
        stats.pop("memoryStats", None)
    elif report.free_ram >= 0 and mem_size > 0:
        stats["memUsage"] = str(max(0, min(100, round(100 - 100 * report.free_ram / mem_size))))
    return stats


def lasting(kept: Kept) -> Kept:
    """Return what of it is true for longer than a connection: a copy, which others may read."""
    told = msgspec.structs.replace(kept.report.told, memory_stats=UNSET)
    survey = msgspec.structs.replace(kept.survey)
    return Kept(report=Report(told=told), survey=survey, news=kept.news, news_until=kept.news_until)


def shown(told: Told) -> dict[str, Any]:
    """Return the facts as the wire has them."""
    plain: dict[str, Any] = msgspec.to_builtins(told)
    return plain


def text(value: Scalar, longest: int = LONGEST_TEXT) -> str:
    """Return a guest's value as text that can be shown."""
    if value is None:
        return ""
    whole = value if isinstance(value, str) else _figure(value)
    return _NOT_IN_XML.sub(_REPLACEMENT, whole[:longest])


def _figure(value: float) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def count(value: Scalar) -> int:
    """Return a guest's value as a number of things, -1 when it is none that could be."""
    try:
        number = int(value or 0)
    except (ValueError, OverflowError):
        return -1
    return number if 0 <= number <= HIGHEST else -1


def texts(values: Iterable[Scalar], most: int = MOST, longest: int = LONGEST_TEXT) -> list[str]:
    return [text(value, longest) for _, value in zip(range(most), values, strict=False)]


def figures(values: Mapping[str, Scalar]) -> dict[str, str]:
    """Return numbers by name, as text."""
    some = zip(range(MOST_FIGURES), values.items(), strict=False)
    return {text(name): text(value) for _, (name, value) in some if name and value is not None}


def addresses(nics: Iterable[Nic]) -> str:
    """Return the IPv4 addresses by which a guest can be reached, parted by spaces."""
    return " ".join(address for nic in nics for address in nic.inet if not address.startswith("127."))
