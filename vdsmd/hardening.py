"""What the daemon gives up of its own accord, as an ordinary user.

QEMU may run as the same user. It promises that no other process of that user can trace the daemon, read its memory or take its
descriptors, and so call root's helper in its name. Imported after the first answers: an exec undoes it, and nobody waits.
"""

from __future__ import annotations

import ctypes
import logging
import os

log = logging.getLogger("daemon")

PR_SET_DUMPABLE = 4


def harden() -> None:
    """Forbid that we are traced by our equals (prctl(2), PR_SET_DUMPABLE). Root can do without, and is not hindered."""
    if os.geteuid() and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("Other processes of this user may trace the daemon error=%s", os.strerror(ctypes.get_errno()))
