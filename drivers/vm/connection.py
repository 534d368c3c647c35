"""Connection: libvirt is there, or not yet, or not any more, and everybody can ask which.

It promises to keep trying while the daemon serves, and that whoever needs libvirt either gets it, or is told at once why not.
Right after an exec "not yet" is worth waiting for: it lasts some milliseconds, and no caller should have to know of it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.errors import DriverError, HypervisorDown

if TYPE_CHECKING:
    from drivers.vm.hypervisor.events import Tell
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("libvirt")

READY_WITHIN = 30.0
LONGEST_PAUSE = 30.0
FIRST_PAUSE = 0.5


class Libvirt:
    """libvirt itself, imported when it is opened first: that takes longer than all the rest of a re-exec.

    `vdsmd.deferred` names the module, so that it is imported soon after the start in any case."""

    def __init__(self) -> None:
        # libvirt reads it when it is imported. Its warnings would go to our standard error, and say nothing of use.
        os.environ.setdefault("LIBVIRT_DEBUG", "4")
        self._module: Any = None

    def open(self, uri: str, lib_dir: str, virt_type: str, tell: Tell, broken: Callable[[str], None]) -> Link:
        """In a worker. See `drivers.vm.hypervisor.link.open_first`."""
        from drivers.vm.hypervisor import link

        self._module = link
        return link.open_first(uri, lib_dir, virt_type, tell, broken)

    def start_events(self) -> None:
        """Have events told again after `stop_events`. The first `open` begins it."""
        if self._module is not None:
            self._module.EVENTS.start()

    def stop_events(self, deadline: float) -> None:
        """Join the thread that tells of events. Raises Busy."""
        if self._module is not None:
            self._module.EVENTS.stop(deadline)


class Connection:
    """One at a time. `connect` is called in a worker and returns an open link; `connected` is told in the loop's thread."""

    def __init__(self, host: Host, connect: Callable[[], Link], connected: Callable[[Link], None]) -> None:
        self._host = host
        self._connect = connect
        self._connected = connected
        self._link: Link | None = None
        self._tried = threading.Event()
        self._reason = "not tried yet"
        self._pause = FIRST_PAUSE
        self._timer: Any = None
        self._trying = False

    @property
    def link(self) -> Link | None:
        """libvirt, if it is there now."""
        return self._link

    @property
    def trying(self) -> bool:
        """Whether an attempt runs. It must not be cut short."""
        return self._trying

    @property
    def tried(self) -> bool:
        """Whether it is known by now if libvirt is there."""
        return self._tried.is_set()

    def status(self) -> str:
        return f"connected to {self._link.uri}" if self._link else f"not connected: {self._reason}"

    def require(self) -> Link:
        """Return libvirt, waiting for the first attempt of this run. For worker threads. Raises HypervisorDown."""
        self._tried.wait(READY_WITHIN)
        if self._link is None:
            raise HypervisorDown(reason=self._reason)
        return self._link

    def start(self) -> None:
        """Begin to try, if there is nothing yet. Loop's thread."""
        self.quiesce()  # one who waits to try again has nothing to wait for
        if self._link is None and not self._trying:
            self._trying = True
            # No time-out: the attempt must not go on behind our back.
            self._host.submit(self._connect, self._done, timeout=0)

    def lost(self, reason: str) -> None:
        """The link broke: try anew. Loop's thread."""
        if self._link is not None:
            self._host.submit(self._link.close)
            self._link = None
            self._fail(reason)

    def quiesce(self) -> None:
        """Begin no attempt from now on, until `start`."""
        if self._timer is not None:
            self._timer.cancel()

    def _done(self, link: Link | None, error: Exception | None) -> None:
        self._trying = False
        if link is None:
            if not isinstance(error, DriverError | OSError):
                log.error("Unexpected failure while connecting", exc_info=error)
            self._fail(str(error))
            return
        self._link, self._pause = link, FIRST_PAUSE
        log.info("Connected uri=%s", link.uri)
        self._host.event("libvirt.found", uri=link.uri)
        self._reason = ""
        try:
            self._connected(link)
        finally:
            self._tried.set()

    def _fail(self, reason: str) -> None:
        if reason != self._reason:
            log.error("libvirt cannot be reached, trying on: %s", reason)
            self._host.event("libvirt.lost", reason=reason)
        self._reason = reason
        self._tried.set()
        self._timer = self._host.later(self._pause, self.start)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
