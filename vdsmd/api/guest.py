"""Verbs about what runs in guests, done by the oVirt agent in them. Without one that answers they end with code 19."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Ignored, Uuid

if TYPE_CHECKING:
    from vdsmd.daemon import Daemon


@verb("desktopLogin", quick=True, cli="guest login")
def desktop_login(daemon: Daemon, vmId: Uuid, domain: str, user: str, password: str) -> Reply:
    """Log a user in at the guest's desktop. `domain` is where the user is known, or empty."""
    daemon.vms.agents.tell(vmId, "login", username=f"{user}@{domain}" if domain else user, password=password)
    return {}


@verb("desktopLogoff", quick=True, cli="guest logoff")
def desktop_logoff(daemon: Daemon, vmId: Uuid, force: Ignored) -> Reply:
    """Log the user off who is logged in at the guest's desktop. `force` has no meaning to agents."""
    daemon.vms.agents.tell(vmId, "log-off")
    return {}


@verb("desktopLock", quick=True, cli="guest lock")
def desktop_lock(daemon: Daemon, vmId: Uuid) -> Reply:
    """Lock the guest's desktop."""
    daemon.vms.agents.tell(vmId, "lock-screen")
    return {}


@verb("sendHcCmdToDesktop", quick=True, cli="guest send")
def send_hc_cmd_to_desktop(daemon: Daemon, vmId: Uuid, message: str) -> Reply:
    """Send the guest's agent a message with this name, and nothing in it."""
    daemon.vms.agents.tell(vmId, message)
    return {}
