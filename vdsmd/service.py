"""The service: the verb table, the dispatcher and the rim, put together for a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsmd.api import (
    control,
    fence,
    guest,
    host,
    image,
    migration,
    network,
    policy,
    pool_member,
    storage_domain,
    storage_pool,
    storage_server,
    task,
    vm,
    vm_blocks,
    vm_devices,
    vm_tuning,
    volume,
)
from vdsmd.api.connection import Connection
from vdsmd.api.dispatch import Dispatcher
from vdsmd.api.http import Limits, Request
from vdsmd.api.rim import Rim
from vdsmd.api.shared import Carrier, Carry
from vdsmd.daemon import Daemon
from vdsmd.loop import Loop

if TYPE_CHECKING:
    from vdsmd.api.streams import Streams

VERBS = (
    vm,
    vm_devices,
    vm_blocks,
    vm_tuning,
    guest,
    network,
    storage_server,
    storage_domain,
    storage_pool,
    pool_member,
    volume,
    image,
    migration,
    task,
    host,
    fence,
    policy,
    control,
)
"""Importing these fills the verb table."""


def open_service(daemon: Daemon, loop: Loop) -> Rim:
    """Return a rim that answers with the verbs of the table. It does not listen yet."""
    settings = daemon.config.vars
    dispatcher = Dispatcher(daemon, daemon.workers.submit, daemon.config.paths.run_dir)
    daemon.last_client = lambda: dispatcher.last_client
    limits = Limits(silence=settings.vds_responsiveness_timeout, keep_alive=settings.xmlrpc_http11)
    return Rim(loop, dispatcher.serve, limits=limits, carry=_carry(daemon, loop, limits))


def _carry(daemon: Daemon, loop: Loop, limits: Limits) -> Carry:
    """Return what carries images; it is imported when the first is carried, or when `vdsmd.deferred` comes to it."""
    opened: list[Streams] = []

    def carry(request: Request, connection: Connection) -> Carrier:
        if not opened:
            from vdsmd.api.streams import Streams

            opened.append(Streams(daemon, loop, limits))
        return opened[0].carry(request, connection)

    return carry
