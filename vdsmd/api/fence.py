"""The verb that switches other hosts' power."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import BoolLike, Struct

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon

# Longer than the helper may take.
TIMEOUT = 200.0


@verb("fenceNode", timeout=TIMEOUT, secret=("options",), cli="host fence")
def fence_node(
    daemon: Daemon,
    addr: str,
    port: int | str,
    agent: str,
    username: str,
    password: str,
    action: str,
    secure: BoolLike = False,
    options: str = "",
    policy: Struct | None = None,
) -> Reply:
    """Switch another host's power by its management device, or ask about it.

    `agent` names the program (`ilo` is fence_ilo), `addr` and `port` the device, `action` is status, on, off, reboot or
    monitor. `options` are lines name=value for the agent; those that it says it does not know are passed over. Answers when the
    agent has ended, with its exit status as the code.

    With status, `power` is on, off or unknown. Otherwise `operationStatus` is initiated; or skipped, when the host is seen
    alive on one of the storage domains in `policy.storageDomainHostIdMap` (its host ids by their uuids).
    """
    from vdsmd.host import fencing  # deferred: not for the first answers

    asked = fencing.Fence(
        addr=addr,
        port=port,
        agent=agent,
        username=username,
        password=password,
        action=action,
        secure=secure,
        options=options,
        policy=policy,
    )
    return fencing.fence(daemon.helper, asked, daemon.host_lives)
