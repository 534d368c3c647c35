"""Taps: what plugs the nics of guests into bridges where QEMU is an ordinary user, made and removed by root.

It promises that the taps of a machine are found again by its id alone: after a crash, too, nothing of a machine that has ended
stays in a bridge. In worker threads, with the machine's id as key. Imported after the first answer.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import logging
import socket
import struct
import uuid
from collections.abc import Iterable
from typing import Any

from drivers.base import Root
from drivers.errors import Failed
from drivers.vm.conf.devices import NO_SPOOFING, InterfaceSpec
from drivers.vm.conf.view import convert
from supervdsm.client import ActionError

log = logging.getLogger("vm")

Struct = dict[str, Any]

PREFIX = "vd"
SIOCGIFMTU = 0x8921
"""linux/sockios.h"""


def name_of(vm_id: str, mac: str) -> str:
    """Return the name of the tap of a machine's nic: 15 bytes, of which all that its machine has in common come first."""
    return f"{_stem(vm_id)}{_short(mac.lower() or uuid.uuid4().hex, 5)}"


def is_of(vm_id: str, name: str) -> bool:
    """Say whether a tap of this name is one of the machine's."""
    return name.startswith(_stem(vm_id))


def present(vm_id: str) -> list[str]:
    """Return the taps of a machine that there are. (In /sys there may be those of another network namespace.)"""
    return [name for _, name in socket.if_nameindex() if is_of(vm_id, name)]


def plug(root: Root, nic: Struct, before: Struct | None = None) -> None:
    """Have the tap of a nic, which is its `name`, in the nic's bridge, or in none if it has none, with what the nic asks for: a
    filter, limits of its traffic, copies of what passes other bridges. `before`: how the nic was, if it is plugged in already.
    Raises Failed."""
    name, bridge = nic["name"], nic.get("network", "")
    try:
        mtu = _mtu(bridge) if bridge else 0
        root.call("tap.create", name=name, bridge=bridge, mtu=mtu, mac=_mac(nic))
        _guard(root, nic, before or {})
    except ActionError as error:
        raise Failed(action=f"plugging a nic into bridge {bridge}", reason=error) from error
    watch(root, nic, before or {})


def _guard(root: Root, nic: Struct, before: Struct) -> None:
    """Filter and limit what passes the tap. libvirt's words say what is meant: inbound is what the guest gets."""
    name, asked, had = nic["name"], _limits(nic), _limits(before)
    mac = _mac(nic) if nic.get("filter") == NO_SPOOFING else ""
    if mac or asked.outbound.average:
        root.call("filter.set", link=name, mac=mac, rate=asked.outbound.average, burst=asked.outbound.burst)
    elif had.outbound.average:
        root.call("filter.clear", link=name)
    if asked.inbound.average or had.inbound.average:
        root.call("tap.limit", name=name, rate=asked.inbound.average, burst=asked.inbound.burst)


def _limits(nic: Struct) -> InterfaceSpec:
    return convert(nic.get("specParams") or {}, InterfaceSpec, "specParams")


def _mac(nic: Struct) -> str:
    return str(nic.get("macAddr", "")).lower()


def watch(root: Root, nic: Struct, before: Struct) -> None:
    """Have the tap get what passes the bridges that the nic watches. Raises Failed."""
    asked, had = nic.get("portMirroring") or [], before.get("portMirroring") or []
    try:
        for bridge in had:
            if bridge not in asked:
                root.call("mirror.unset", bridge=bridge, link=nic["name"])
        for bridge in asked:
            root.call("mirror.set", bridge=bridge, link=nic["name"])
    except ActionError as error:
        raise Failed(action=f"mirroring {', '.join(asked) or 'nothing'}", reason=error) from error


def unwatch(root: Root, nic: Struct) -> None:
    """Undo it, where the tap goes by itself. What cannot be is logged."""
    try:
        watch(root, {**nic, "portMirroring": []}, nic)
    except Failed as error:
        log.error("A mirror stays behind name=%s error=%s", nic.get("name"), error)


def remove(root: Root, names: Iterable[str]) -> None:
    """Remove taps. What cannot be removed is logged, and costs nobody anything but its name in a bridge."""
    for name in names:
        try:
            root.call("tap.delete", name=name)
        except ActionError as error:
            log.error("A tap stays behind name=%s error=%s", name, error)


def _mtu(bridge: str) -> int:
    """What a tap must have so that the bridge's does not become less."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            told = fcntl.ioctl(any_socket, SIOCGIFMTU, struct.pack("16si20x", bridge.encode()[:15], 0))
    except OSError as error:
        raise Failed(
            action=f"plugging a nic into bridge {bridge}", reason=f"there is no such bridge ({error})"
        ) from error
    return int(struct.unpack("16si20x", told)[1])


def _stem(vm_id: str) -> str:
    return f"{PREFIX}{_short(vm_id.lower(), 8)}"


def _short(text: str, length: int) -> str:
    digest = hashlib.blake2s(text.encode(), digest_size=5).digest()
    return base64.b32encode(digest).decode().lower()[:length]
