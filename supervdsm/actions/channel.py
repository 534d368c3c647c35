"""Let the daemon reach the agents in guests: QEMU makes the sockets of their channels, as a user of its own.

It promises to touch nothing but sockets that lie in the daemon's folder of channels itself.
"""

from __future__ import annotations

import os
import stat

from supervdsm.errors import Invalid, NotAllowed
from supervdsm.meanings import meaning
from supervdsm.registry import Context, action

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@action("channel.admit")
def admit(context: Context, vm_id: str, channel: str) -> bool:
    """Give the daemon's group the right to use the socket of a guest's channel; its owner stays. Raises Invalid, NotAllowed,
    NotFound, Failed."""
    name = f"{vm_id}.{channel}"
    if "/" in name or "\0" in name:
        raise Invalid(f"{name!r} is no name of a channel")
    with meaning(name):
        folder = os.open(os.path.join(context.run_dir, "channels"), _LOOK | os.O_DIRECTORY)
        try:
            socket = os.open(name, _LOOK, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            _admit(socket, name, context.gid)
        finally:
            os.close(socket)
    return True


def _admit(socket: int, name: str, gid: int) -> None:
    told = os.fstat(socket)
    mode = told.st_mode
    if not stat.S_ISSOCK(mode):
        raise NotAllowed(f"{name} is no socket")
    if told.st_nlink != 1:  # it might be the socket of something else on this host
        raise NotAllowed(f"{name} has other names ({told.st_nlink} in all)")
    # By its descriptor: whatever takes its name meanwhile is another file.
    itself = f"/proc/self/fd/{socket}"
    os.chown(itself, -1, gid)
    os.chmod(itself, stat.S_IMODE(mode) | stat.S_IRGRP | stat.S_IWGRP)
