"""A vdsmd that is left behind by a helper that was killed.

It ends by itself when it notices. One that is stuck never does, and would keep its lock and its port from the next for ever.
This module promises that what is ended is that very process, known from a note in root's own directory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import select
import signal

from supervdsm.callers import start_time
from supervdsm.errors import ActionError
from supervdsm.places import private
from supervdsm.registry import Context

log = logging.getLogger("supervdsm.daemon")

PATIENCE = 10.0
"""Seconds for it to end by itself, and to be gone after it was killed."""


def note(context: Context, pid: int) -> None:
    """Write down that this is our child now."""
    try:
        path = _path(context)
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump([pid, start_time(pid)], file)
        os.rename(f"{path}.new", path)
    except (OSError, ActionError) as error:
        log.error("It cannot be noted which vdsmd is ours reason=%s", error)


def forget(context: Context) -> None:
    """Write down that we have none."""
    try:
        os.unlink(_path(context))
    except (OSError, ActionError):
        pass  # there was no note


def end(context: Context) -> None:
    """See to it that the one before does not run any more."""
    try:
        with open(_path(context), encoding="ascii") as file:
            pid, started = json.load(file)
        pidfd = os.pidfd_open(pid)
    except (OSError, ActionError, ValueError, TypeError):
        return  # there was none, or it has gone
    try:
        if start_time(pid) == started and not _gone(pidfd):
            log.error("A vdsmd that a helper before us has left does not end, and is killed pid=%d", pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _gone(pidfd)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _gone(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


def _path(context: Context) -> str:
    """Return the place of the note: daemons with other run directories have others."""
    run_dir = os.path.realpath(context.run_dir)
    return f"{private(context)}/vdsmd-{hashlib.sha256(run_dir.encode()).hexdigest()[:16]}"
