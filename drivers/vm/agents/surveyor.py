"""Surveyor: asks QEMU's guest agents, guest by guest, how their guests are.

It promises that guests without an agent cost next to nothing, that one whose agent hangs costs no other guest its turn, and
that while a re-exec is waited for no survey begins, and one that runs asks no further question. All calls come from the loop's
thread. Imported after the first answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from drivers.base import Host
from drivers.vm.agents.guest import SURVEY_INTERVAL, Guest
from drivers.vm.agents.qemu import survey
from drivers.vm.agents.told import Told
from drivers.vm.connection import Connection
from drivers.vm.contract import Status

if TYPE_CHECKING:
    from drivers.vm.hypervisor.link import Link

log = logging.getLogger("guest")

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 240.0
"""Between questions to a guest that has not answered. libvirt tells of agents that come, so this is for lost events."""
FAILURES = 2
"""Questions without an answer, after which an agent is not counted upon."""
CANNOT_ANSWER = (Status.PAUSED, Status.SAVING, Status.MIGRATION_DESTINATION, Status.DOWN)
"""Nothing runs in guests that are like this, and libvirt may let whoever asks wait."""
AT_ONCE = 4
SHORTEST = 0.1


class Surveyor:
    """`guests` returns those to be asked; each keeps what it told."""

    def __init__(self, host: Host, connection: Connection, guests: Callable[[], Iterable[Guest]]) -> None:
        self._host = host
        self._connection = connection
        self._guests = guests
        self._running: dict[str, Guest] = {}
        self._held = False
        self._timer: Any = None

    @property
    def running(self) -> list[str]:
        """The ids of machines that are being asked."""
        return sorted(self._running)

    def hold(self, held: bool) -> None:
        """Begin no survey while held."""
        self._held = held
        self.look_around()

    def soon(self, guest: Guest) -> None:
        """Something changed with its agent: ask it now."""
        guest.survey_due, guest.survey_failures = 0.0, 0
        self.look_around()

    def stop(self) -> None:
        """Begin none by oneself until `look_around`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_around(self) -> None:
        """Begin what is due, and be back when more is."""
        self.stop()
        link = self._connection.link
        if self._held or link is None or not link.row.channels:
            return
        now = time.monotonic()
        waiting = sorted(
            (guest for guest in self._guests() if self._can_be_asked(guest)), key=lambda guest: guest.survey_due
        )
        for guest in waiting:
            if guest.survey_due > now or len(self._running) >= AT_ONCE:
                break
            self._begin(link, guest)
        later = [guest.survey_due for guest in waiting if guest.survey_due > now]
        if later:
            self._timer = self._host.later(max(SHORTEST, min(later) - now), self.look_around)

    def _can_be_asked(self, guest: Guest) -> bool:
        machine = guest.machine
        return machine.vm_id not in self._running and machine.status not in CANNOT_ANSWER

    def _begin(self, link: Link, guest: Guest) -> None:
        vm_id = guest.machine.vm_id
        self._running[vm_id] = guest
        # No time-out: each answer has one, and a thread that is held up longer must be counted. A key of its own: what is
        # asked of the machine does not wait for its agent.
        self._host.submit(
            partial(survey, link, vm_id, guest.kept.survey, lambda: not self._held),
            partial(self._done, guest),
            key=f"{vm_id}/agent",
            timeout=0,
        )

    def _done(self, guest: Guest, told: Told | None, error: Exception | None) -> None:
        del self._running[guest.machine.vm_id]
        now = time.monotonic()
        if told is None:
            guest.survey_failures += 1
            if guest.survey_failures >= FAILURES:
                guest.kept.surveyed = 0.0
            guest.survey_due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(guest.survey_failures - 1, 8))
            log.debug("No answer from QEMU's guest agent vm=%s error=%s", guest.machine.vm_id, error)
        else:
            guest.survey_failures = 0
            guest.kept.unwritten = guest.kept.unwritten or told != guest.kept.survey
            guest.survey_due = now + SURVEY_INTERVAL
            guest.kept.survey, guest.kept.surveyed = told, now
        self.look_around()
