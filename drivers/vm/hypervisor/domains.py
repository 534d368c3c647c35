"""Domains of an open connection, and what libvirt's errors about them mean.

It promises that every failure of libvirt leaves here as one of our errors, with libvirt's own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import libvirt

from drivers.errors import Busy, Failed, HypervisorDown, NoSuchVm, NotResponding

UNREACHABLE = {
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_AUTH_CANCELLED,
}
TOO_LATE = {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_AGENT_UNRESPONSIVE}


@contextmanager
def meaning(action: str) -> Iterator[None]:
    """Raise what libvirt raises as HypervisorDown, NoSuchVm, NotResponding, Busy or Failed."""
    try:
        yield
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            raise NoSuchVm() from error
        if code in UNREACHABLE:
            raise HypervisorDown(reason=str(error)) from error
        if code in TOO_LATE:
            raise NotResponding(what="the virtual machine", reason=str(error)) from error
        if "Address already in use" in str(error):
            raise Busy(what="a port of a display", reason=str(error)) from error
        raise Failed(action=action, reason=str(error)) from error


class Domains:
    """The domains of a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @contextmanager
    def get(self, vm_id: str, action: str) -> Iterator[Any]:
        """Give libvirt's handle of a domain; what fails with it is said to have been `action`."""
        with meaning(action):
            yield self._connection.lookupByUUIDString(vm_id)

    def there(self, vm_ids: Iterable[str]) -> list[Any]:
        """Return the handles of those that are there. Asks for no other."""
        found = []
        for vm_id in vm_ids:
            with suppress(NoSuchVm), self.get(vm_id, "looking up a domain") as domain:
                found.append(domain)
        return found

    def xml(self, vm_id: str, *, secure: bool = False) -> str:
        with self.get(vm_id, "reading the definition") as domain:
            return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE if secure else 0))
