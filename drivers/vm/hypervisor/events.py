"""libvirt's event loop, and what its events mean to us. Imported after the first answer.

It promises that events are hints, told in the order in which libvirt sends them, and that the loop's thread can be stopped
before an exec and started again when there was none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from drivers.errors import Busy
from drivers.vm.contract import HOST_SHUTDOWN, LOST_QEMU, MIGRATED, SAVED, USER_SHUTDOWN, Ending
from state import threads

log = logging.getLogger("libvirt")

Tell = Callable[[str, str, Any], None]
"""`tell(vm_id, what, detail)`, in libvirt's thread: something happened to the machine. What, and its detail:
started, changed, rebooted; agent (QEMU's in the guest came or went); stopped (an Ending);
shut down (whether by the host); clock (offset in seconds);
watchdog (the wire's word for what it did); io-error (a pause code); unplugged (a device, by its alias)."""

THREAD = "libvirt-events"

ENDINGS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: USER_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: HOST_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: LOST_QEMU,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: LOST_QEMU,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: SAVED,
}
PAUSE_CODES = {"enospc": "ENOSPC", "eio": "EIO"}
WATCHDOG_ACTIONS = {
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_NONE: "ignore",
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_PAUSE: "pause",
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_RESET: "reset",
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF: "destroy",
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_DEBUG: "log",
}
"""In the wire's words, which has none for an interrupt that is injected: the machine runs on, as with 'ignore'."""


class EventLoop:
    """libvirt's event loop, in a thread that can be stopped and started again. There is one per process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._timer = -1
        self._stopping = False

    def start(self) -> None:
        """Run the loop; must have been called before the first connection is opened. Any number of times."""
        if self._timer < 0:
            libvirt.registerErrorHandler(lambda _context, error: log.debug("libvirt says: %s", error[2]), None)
            libvirt.virEventRegisterDefaultImpl()
            self._timer = libvirt.virEventAddTimeout(
                -1, lambda timer, _: libvirt.virEventUpdateTimeout(timer, -1), None
            )
        if self._thread is None:
            self._stopping = False
            self._thread = threads.start(THREAD, self._run)

    def stop(self, deadline: float) -> None:
        """Raises Busy when a callback does not return."""
        if self._thread is None:
            return
        self._stopping = True
        libvirt.virEventUpdateTimeout(self._timer, 0)
        if not threads.join(self._thread, deadline):
            raise Busy(what=f"thread {THREAD}", reason="libvirt does not let go of it")
        self._thread = None

    def _run(self) -> None:
        while not self._stopping:
            libvirt.virEventRunDefaultImpl()


EVENTS = EventLoop()
"""The one of this process."""


def register(connection: Any, tell: Tell) -> None:
    """Have everything that happens on the connection told. Raises libvirtError."""
    for event, meaning in _MEANINGS.items():
        connection.domainEventRegisterAny(None, event, _callback(meaning, tell), None)


Meaning = Callable[..., tuple[str, Any]]


def _callback(meaning: Meaning, tell: Tell) -> Callable[..., None]:
    def heard(_connection: Any, domain: Any, *details: Any) -> None:
        tell(domain.UUIDString(), *meaning(*details[:-1]))

    return heard


def _lifecycle(event: int, detail: int) -> tuple[str, Any]:
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
        ending: Ending = ENDINGS.get(detail, LOST_QEMU)
        return "stopped", ending
    if event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
        return "shut down", detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST
    return ("started" if event == libvirt.VIR_DOMAIN_EVENT_STARTED else "changed"), None


def _watchdog(action: int) -> tuple[str, str]:
    return "watchdog", WATCHDOG_ACTIONS.get(action, "ignore")


_MEANINGS: dict[int, Meaning] = {
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: _lifecycle,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: lambda: ("rebooted", None),
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: lambda _state, _reason: ("agent", None),
    libvirt.VIR_DOMAIN_EVENT_ID_RTC_CHANGE: lambda offset: ("clock", offset),
    libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG: _watchdog,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: lambda alias: ("unplugged", alias),
    libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: lambda _path, _alias, _action, reason: (
        "io-error",
        PAUSE_CODES.get(reason, "EOTHER"),
    ),
}
