"""Give files and directories of the storage to the daemon's user.

It promises never to give away what has another name elsewhere, what would run with its owner's rights, or what is no file.
"""

from __future__ import annotations

import os
import stat

from supervdsm.errors import NotAllowed
from supervdsm.meanings import meaning
from supervdsm.places import below, magic
from supervdsm.registry import HSMD, VDSMD, Context, action


@action("ownership.chown", callers=(VDSMD, HSMD), slow=True, timeout=60)
def chown(context: Context, path: str) -> bool:
    """Give a file or a directory below the repository to the daemon's user and group.

    Storage that is mounted below the repository is entered; links are not followed. False: it was theirs already. Raises
    NotAllowed, NotFound and Failed (a server that squashes root refuses).
    """
    with below([context.repository], path, other_mounts=True) as fd:
        with meaning(path):
            status = os.fstat(fd)
        _check(path, status)
        if (status.st_uid, status.st_gid) == (context.uid, context.gid):
            return False
        with meaning(path):
            os.chown(magic(fd), context.uid, context.gid)
    return True


def _check(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise NotAllowed(f"{path} is neither a file nor a directory")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise NotAllowed(f"{path} runs with its owner's rights")
    if status.st_nlink != 1:
        raise NotAllowed(f"{path} has other names ({status.st_nlink} in all)")
