"""What the kernel's errors mean to a caller of the helper.

It promises that an OSError inside `meaning()` leaves it as one of `supervdsm.errors`, with the cause chained.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from supervdsm.errors import ActionError, AlreadyExists, Busy, Failed, NotAllowed, NotFound, Unsupported

MEANT: dict[int | None, type[ActionError]] = {
    errno.ENOENT: NotFound,
    errno.ENXIO: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EBUSY: Busy,
    None: NotAllowed,  # a check of our own
    errno.ELOOP: NotAllowed,
    errno.ENOTDIR: NotAllowed,
    errno.ENAMETOOLONG: NotAllowed,
    errno.ENODEV: Unsupported,
    errno.ENOSYS: Unsupported,
    errno.EOPNOTSUPP: Unsupported,
    errno.EROFS: Unsupported,
}


@contextmanager
def meaning(what: str) -> Iterator[None]:
    """Turn an OSError into what it means; `what` begins its text."""
    try:
        yield
    except OSError as error:
        raise MEANT.get(error.errno, Failed)(f"{what}: {error.strerror or error}") from error
