"""The oVirt guest agent's protocol: one JSON object per line, with its name in `__name__`.

It promises that whatever a guest sends is either understood, or raises Unintelligible and changes nothing. A new message is one
function in `_MEANINGS`. Imported after the first answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec

from drivers.vm.agents.told import (
    HIGHEST,
    LONGEST_ADDRESS,
    MOST,
    MOST_ADDRESSES,
    MOST_NICS,
    Mount,
    Nic,
    OsInfo,
    Report,
    Scalar,
    Timezone,
    Told,
    addresses,
    count,
    figures,
    text,
    texts,
)
from state.records import UNREADABLE

API = 3
"""The newest version of the protocol that we know."""

LONGEST_MENDED = 1 << 17
"""Bytes of a line that is looked through for what is no character: that takes its time, and honest lines are shorter."""

NOBODY = ("", "None", "Unknown")
"""Names that stand for no user."""

Texts = list[Scalar] | str | None


class Unintelligible(ValueError):
    """What a guest sent is no message."""


class _Interface(msgspec.Struct):
    name: Scalar = ""
    hw: Scalar = ""
    inet: Texts = None
    inet6: Texts = None


class _Disk(msgspec.Struct):
    path: Scalar = ""
    total: Scalar = ""
    used: Scalar = ""
    fs: Scalar = ""


_RENAMED = {"kind": "__name__", "free_ram": "free-ram", "memory_stat": "memory-stat", "api_version": "apiVersion"}


class Message(msgspec.Struct, kw_only=True, rename=_RENAMED):
    """Any message: all fields that any of them has, and we look at. The rest is not even read."""

    kind: str
    name: Scalar = ""
    version: Scalar = ""
    fqdn: Scalar = ""
    count: Scalar = None
    free_ram: Scalar = None
    memory_stat: dict[str, Scalar] | None = None
    api_version: Scalar = None
    interfaces: list[_Interface] | None = None
    applications: list[Scalar] | None = None
    disks: list[_Disk] | None = None
    zone: Scalar = ""
    offset: Scalar = 0
    distribution: Scalar = ""
    codename: Scalar = ""
    arch: Scalar = ""
    type: Scalar = ""
    kernel: Scalar = ""


_DECODER = msgspec.json.Decoder(Message)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape in JSON. The group is half of a pair that lacks its other half: no character, but agents send it."""


def read(line: bytes) -> Message:
    """Return the message in a line. Raises Unintelligible."""
    try:
        return _DECODER.decode(line)
    except UNREADABLE as failure:
        if len(line) > LONGEST_MENDED:
            raise Unintelligible(str(failure)[:200]) from failure
        try:
            return _DECODER.decode(_mended(line))
        except UNREADABLE as error:
            raise Unintelligible(str(error)[:200]) from error


def _mended(line: bytes) -> bytes:
    """Return the line with a replacement for what is no character: bytes that are not UTF-8, and halves of pairs."""
    whole = line.decode("utf-8", "replace").encode()
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], whole)


def written(kind: str, **fields: str | int) -> bytes:
    """Return a message to a guest as a line."""
    return msgspec.json.encode({"__name__": kind, **fields}) + b"\n"


def take(report: Report, message: Message) -> None:
    """Note what a message tells. One that is not known tells nothing but that the agent is there."""
    report.heard = time.monotonic()
    meaning = _MEANINGS.get(message.kind)
    if meaning is not None:
        meaning(report, message)


def agreed(message: Message) -> int:
    """Return the version of the protocol that a heartbeat allows; 0 when the agent knows of none."""
    return min(API, max(0, count(message.api_version)))


def _heartbeat(report: Report, message: Message) -> None:
    report.heartbeat = time.monotonic()
    if message.free_ram is not None:
        report.free_ram = count(message.free_ram)
    if message.memory_stat is not None:
        report.told.memory_stats = figures(message.memory_stat)


def _host_name(report: Report, message: Message) -> None:
    report.told.guest_name = text(message.name)


def _os_version(report: Report, message: Message) -> None:
    report.told.guest_os = text(message.version)


def _os_info(report: Report, message: Message) -> None:
    report.told.guest_os_info = OsInfo(
        version=text(message.version),
        distribution=text(message.distribution),
        codename=text(message.codename),
        arch=text(message.arch),
        type=text(message.type),
        kernel=text(message.kernel),
    )


def _timezone(report: Report, message: Message) -> None:
    try:
        offset = int(message.offset or 0)
    except (ValueError, OverflowError):
        offset = 0
    report.told.guest_timezone = Timezone(zone=text(message.zone), offset=max(-HIGHEST, min(HIGHEST, offset)))


def _interfaces(report: Report, message: Message) -> None:
    nics = [
        Nic(name=text(nic.name), hw=text(nic.hw), inet=_listed(nic.inet), inet6=_listed(nic.inet6))
        for nic in (message.interfaces or [])[:MOST_NICS]
    ]
    report.told.net_ifaces = nics
    report.told.guest_ips = addresses(nics)


def _listed(values: Texts) -> list[str]:
    """Older agents send one address as text."""
    return texts(values.split() if isinstance(values, str) else values or [], MOST_ADDRESSES, LONGEST_ADDRESS)


def _applications(report: Report, message: Message) -> None:
    report.told.apps_list = texts(message.applications or [])


def _active_user(report: Report, message: Message) -> None:
    told, name = report.told, text(message.name)
    before = told.username or ""
    if name == before:
        return
    if before not in NOBODY:
        told.last_user, told.last_logout = before, time.time()
    if name not in NOBODY:
        told.last_login = time.time()
    told.username = name or "None"


def _session(state: str) -> Callable[[Report, Message], None]:
    def note(report: Report, message: Message) -> None:
        report.told.session = state

    return note


def _logged_off(report: Report, message: Message) -> None:
    told = report.told
    told.session, told.last_logout = "LoggedOff", time.time()
    if told.username not in (*NOBODY, msgspec.UNSET):
        told.last_user = told.username


def _disks(report: Report, message: Message) -> None:
    report.told.disks_usage = [
        Mount(path=text(disk.path), total=text(disk.total), used=text(disk.used), fs=text(disk.fs))
        for disk in (message.disks or [])[:MOST]
    ]


def _fqdn(report: Report, message: Message) -> None:
    report.told.guest_fqdn = text(message.fqdn)


def _processors(report: Report, message: Message) -> None:
    report.told.guest_cpu_count = count(message.count)


def _uninstalled(report: Report, message: Message) -> None:
    """The agent goes for good, and with it what it told."""
    report.told, report.heartbeat, report.free_ram, report.api = Told(), 0.0, -1, 0


_MEANINGS: dict[str, Callable[[Report, Message], None]] = {
    "heartbeat": _heartbeat,
    "host-name": _host_name,
    "os-version": _os_version,
    "os-info": _os_info,
    "timezone": _timezone,
    "network-interfaces": _interfaces,
    "applications": _applications,
    "active-user": _active_user,
    "session-logon": _session("UserLoggedOn"),
    "session-lock": _session("Locked"),
    "session-unlock": _session("Active"),
    "session-logoff": _logged_off,
    "disks-usage": _disks,
    "fqdn": _fqdn,
    "number-of-cpus": _processors,
    "uninstalled": _uninstalled,
}
