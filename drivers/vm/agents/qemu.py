"""QEMU's guest agent: what it is asked about a guest, and what its answers mean.

It promises that an answer of whatever form costs no more than the facts that were asked for. libvirt owns the connection; all
calls are for worker threads, take a few seconds at most, and raise the link's errors. Imported after the first answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.errors import DriverError, Failed, HypervisorDown, NoSuchVm, NotResponding
from drivers.vm.agents.told import (
    HIGHEST,
    LONGEST_ADDRESS,
    MOST,
    MOST_ADDRESSES,
    MOST_NICS,
    Mount,
    Nic,
    OsInfo,
    Scalar,
    Timezone,
    Told,
    addresses,
    text,
    texts,
)
from state.records import UNREADABLE

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("guest")

PATIENCE = 2
"""Seconds for an answer. Before the first one, libvirt makes sure for up to five that there is an agent at all; to set that
otherwise (virDomainAgentSetResponseTimeout) would hold for a freeze of file systems, too, which may take long."""


class _Answer(msgspec.Struct, frozen=True):
    """`result`: what the agent's command returned."""

    result: msgspec.Raw = msgspec.field(name="return", default=msgspec.Raw(b"null"))


class _Address(msgspec.Struct, frozen=True, rename="kebab"):
    ip_address: Scalar = ""
    ip_address_type: Scalar = ""


class _Interface(msgspec.Struct, frozen=True, rename="kebab"):
    name: Scalar = ""
    hardware_address: Scalar = ""
    ip_addresses: list[_Address] = []


class _User(msgspec.Struct, frozen=True, rename="kebab"):
    user: str = ""
    domain: str = ""
    login_time: float = 0.0


class _HostName(msgspec.Struct, frozen=True, rename="kebab"):
    host_name: str


class _Os(msgspec.Struct, frozen=True, rename="kebab"):
    id: Scalar = ""
    name: Scalar = ""
    pretty_name: Scalar = ""
    version: Scalar = ""
    version_id: Scalar = ""
    kernel_release: Scalar = ""
    machine: Scalar = ""


class _Timezone(msgspec.Struct, frozen=True, rename="kebab"):
    zone: Scalar = ""
    offset: int = 0
    """Seconds east of UTC."""


class _FileSystem(msgspec.Struct, frozen=True, rename="kebab"):
    mountpoint: Scalar = ""
    type: Scalar = ""
    used_bytes: Scalar = None
    total_bytes: Scalar = None


class _Processor(msgspec.Struct, frozen=True, rename="kebab"):
    online: bool = True


def survey(link: Link, vm_id: str, before: Told, go_on: Callable[[], bool] = lambda: True) -> Told:
    """Ask the agent for all that it can tell, for as long as `go_on` says. What it cannot, now or ever, or was not asked any
    more, stays as it was. Raises NotResponding when there is no agent that answers, NoSuchVm, HypervisorDown."""
    told = msgspec.structs.replace(before)
    ask(link, vm_id, "guest-ping")
    for command, (kind, note) in _QUESTIONS.items():
        if not go_on():
            break
        try:
            note(told, msgspec.json.decode(ask(link, vm_id, command), type=kind))
        except (NotResponding, NoSuchVm, HypervisorDown):
            raise
        except (DriverError, *UNREADABLE) as error:
            # An older agent, one that was told to refuse this, one whose file systems are frozen: all of them are usual.
            log.debug("A guest does not tell vm=%s command=%s error=%s", vm_id, command, error)
    return told


def shut_down(link: Link, vm_id: str, *, reboot: bool) -> None:
    """Have the guest shut down, or start anew, from inside. Raises NotResponding, Failed when it refuses."""
    ask(link, vm_id, "guest-ping")
    try:
        ask(link, vm_id, "guest-shutdown", mode="reboot" if reboot else "powerdown")
    except NotResponding:
        # It answers only if it cannot do it.
        log.debug("The guest agent was told to shut down vm=%s", vm_id)


def ask(link: Link, vm_id: str, command: str, **arguments: str) -> msgspec.Raw:
    """Return what the command returned, as JSON."""
    asked: dict[str, Any] = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
    answer = link.agent.ask(vm_id, msgspec.json.encode(asked).decode(), PATIENCE)
    try:
        return msgspec.json.decode(answer, type=_Answer).result
    except UNREADABLE as error:
        raise Failed(action=command, reason=error) from error


def _interfaces(told: Told, found: list[_Interface]) -> None:
    told.net_ifaces = [
        Nic(
            name=text(nic.name),
            hw=text(nic.hardware_address),
            inet=_of_type(nic, "ipv4"),
            inet6=_of_type(nic, "ipv6"),
        )
        for nic in found[:MOST_NICS]
    ]
    told.guest_ips = addresses(told.net_ifaces)


def _of_type(nic: _Interface, kind: str) -> list[str]:
    found = (at.ip_address for at in nic.ip_addresses if at.ip_address_type == kind)
    return texts(found, MOST_ADDRESSES, LONGEST_ADDRESS)


def _users(told: Told, found: list[_User]) -> None:
    """The one who came last stands for all."""
    last = max(found, key=lambda user: user.login_time, default=None)
    if last is None:
        told.username, told.session = "None", "LoggedOff"
        return
    told.username = text(f"{last.user}@{last.domain}" if last.domain else last.user)
    told.session, told.last_login = "UserLoggedOn", last.login_time


def _host_name(told: Told, found: _HostName) -> None:
    told.guest_name = told.guest_fqdn = text(found.host_name)


def _os(told: Told, found: _Os) -> None:
    codename = re.search(r"\((.*?)\)", text(found.version))
    told.guest_os = text(found.pretty_name) or text(found.name) or text(found.kernel_release)
    told.guest_os_info = OsInfo(
        version=text(found.version_id),
        distribution=text(found.name),
        codename=codename[1] if codename else "",
        arch=text(found.machine),
        type="windows" if found.id == "mswindows" else "linux",
        kernel=text(found.kernel_release),
    )


def _timezone(told: Told, found: _Timezone) -> None:
    told.guest_timezone = Timezone(zone=text(found.zone), offset=max(-HIGHEST, min(HIGHEST, found.offset // 60)))


def _file_systems(told: Told, found: list[_FileSystem]) -> None:
    told.disks_usage = [
        Mount(path=text(fs.mountpoint), total=text(fs.total_bytes), used=text(fs.used_bytes), fs=text(fs.type))
        for fs in found[:MOST]
        if fs.total_bytes is not None
    ]


def _processors(told: Told, found: list[_Processor]) -> None:
    told.guest_cpu_count = sum(processor.online for processor in found)


_QUESTIONS: dict[str, tuple[Any, Callable[[Told, Any], None]]] = {
    "guest-network-get-interfaces": (list[_Interface], _interfaces),
    "guest-get-users": (list[_User], _users),
    "guest-get-host-name": (_HostName, _host_name),
    "guest-get-osinfo": (_Os, _os),
    "guest-get-timezone": (_Timezone, _timezone),
    "guest-get-fsinfo": (list[_FileSystem], _file_systems),
    "guest-get-vcpus": (list[_Processor], _processors),
}
