"""The edge between storage and clients: an OSError that nobody expected becomes the error of the verb that met it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from drivers.errors import DriverError, Failed
from drivers.storage.errors import DomainFull, StaleHandle


@contextlib.contextmanager
def failing(kind: type[Failed], action: str, domain: str = "") -> Iterator[None]:
    """Raise `kind`, which is what the verb says when it has no better word, for OSErrors of the storage that nothing inside
    has given a meaning."""
    try:
        yield
    except OSError as error:
        raise _meant(error, kind, action, domain) from error


def _meant(error: OSError, kind: type[Failed], action: str, domain: str) -> DriverError:
    if error.errno == errno.ESTALE:
        return StaleHandle(action=action, reason=error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DomainFull(action=action, domain=domain, reason=error.strerror)
    return kind(action=action, reason=error)
