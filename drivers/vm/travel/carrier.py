"""Carrier: a process that carries one long call to a libvirt daemon: `python -m drivers.vm.travel.carrier ORDER`.

A thread of the daemon cannot: it would have to come back before an exec. It promises that the file ORDER is locked for as
long as the call may still be made or is being made, and that how it ended is in ORDER.done before the lock is gone, unless
nobody knows how it ended: then there is no such file. Descriptor 3 is the file, locked by whoever started us.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

UNKNOWN = ""
ORDER_FD = 3


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried. `target`: the file, or the uri of the other libvirt; params and flags as libvirt has them.
    `xml`: the definition before, for whoever wants to know afterwards."""

    uri: str
    vm_id: str
    deed: str
    target: str
    params: dict[str, str | int] = {}
    flags: int = 0
    xml: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. error: libvirt's text, '' when all went well."""

    error: str = ""


def done_path(order: str) -> str:
    return f"{order}.done"


def main(path: str) -> int:
    with open(path, "rb") as file:
        order = msgspec.json.decode(file.read(), type=Order)
    done = carry(order)
    if done is not None:
        _write(done_path(path), msgspec.json.encode(done))
    return 0 if done == Done() else 1


def carry(order: Order) -> Done | None:
    """Make the call. None when it is not known how it ended."""
    import libvirt  # whoever imports us for the types alone does not wait for it

    from drivers.vm.hypervisor.domains import UNREACHABLE

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(order.uri)
    except libvirt.libvirtError as error:
        return Done(error=str(error))
    try:
        _call(connection.lookupByUUIDString(order.vm_id), order)
    except libvirt.libvirtError as error:
        if error.get_error_code() in UNREACHABLE and not connection_lives(connection):
            return None
        return Done(error=str(error))
    return Done()


def connection_lives(connection: Any) -> bool:
    """Say whether our own libvirt still answers: the same errors come from the other one, too."""
    import libvirt

    try:
        connection.getLibVersion()
    except libvirt.libvirtError:
        return False
    return True


def _call(domain: Any, order: Order) -> None:
    if order.deed == "save":
        domain.saveFlags(order.target, None, order.flags)
    else:
        domain.migrateToURI3(order.target, order.params, order.flags)


def _write(path: str, data: bytes) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
