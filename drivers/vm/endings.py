"""Why a machine has ended: from what was asked of it, what was heard of it, and how its process exited.

It promises that a guest which shut down by itself is told from one that somebody has ended, and both from one that was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from drivers.vm.contract import (
    ADMIN_SHUTDOWN,
    HOST_SHUTDOWN,
    LOST_QEMU,
    MISSING,
    NEVER_CAME,
    USER_SHUTDOWN,
    Ending,
    Status,
)
from drivers.vm.machine import Machine


class Notes(msgspec.Struct):
    """What was heard of a machine's run. Not worth surviving: after an exec, libvirt is asked anew."""

    started: bool = False
    ending: Ending | None = None
    by_host: bool = False
    exit_code: int | None = None
    """Of its QEMU, as far as that is ours to know."""


def ending_of(machine: Machine, notes: Notes) -> Ending:
    """Return why a machine ended whose domain is gone, from what was asked of it and what was heard."""
    heard = notes.ending
    if machine.status is Status.MIGRATION_DESTINATION:
        return NEVER_CAME
    if heard is LOST_QEMU and notes.exit_code == 0:
        # Somebody has told QEMU to end, and it has, in order. libvirt does not read its last words when it is just about to ask
        # it something. A guest that shuts down by itself is another matter: QEMU waits until libvirt has heard of it.
        heard = HOST_SHUTDOWN
    asked = machine.shutdown is not None and not machine.shutdown.reboot
    if heard in (USER_SHUTDOWN, HOST_SHUTDOWN, None) and asked:
        return ADMIN_SHUTDOWN
    if heard is USER_SHUTDOWN and notes.by_host:
        return HOST_SHUTDOWN
    if heard is None:
        return LOST_QEMU if notes.exit_code else MISSING
    return heard


def _started(notes: Notes, _: Any) -> None:
    # libvirt tells things in their order: what was heard until now was about another run.
    notes.started, notes.ending, notes.by_host = True, None, False


def _stopped(notes: Notes, ending: Ending) -> None:
    if notes.started:
        notes.ending = ending


def _shut_down(notes: Notes, by_host: bool) -> None:
    notes.by_host = notes.started and by_host


NOTED: dict[str, Callable[[Notes, Any], None]] = {"started": _started, "stopped": _stopped, "shut down": _shut_down}
"""What libvirt tells that is noted (see `hypervisor.events.Tell`)."""
