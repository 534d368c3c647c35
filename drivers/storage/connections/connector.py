"""Connector: makes storage show in the repository, and has it go again.

It promises that what could not be used is not left behind, that no helper of ours keeps what is to go busy, and that storage
which others use is not taken from them: only what hangs anyway is unmounted lazily.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.contract import Settings
from drivers.storage.errors import (
    ConnectionBusy,
    ConnectionFailed,
    MountFailed,
    MountUnknown,
    NoPermission,
    StorageHangs,
)
from drivers.storage.helpers.files import Files
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.record import Connection
from supervdsm.client import ActionError, Busy, Invalid, NotAllowed, Unsupported

log = logging.getLogger("storage.connections")

USUAL_PATIENCE = 60.0
"""Seconds that root gives mount(8) unless told otherwise."""
MOST_PATIENCE = 180.0
MARGIN = 15.0
"""Seconds for root to end mount(8) and to say so, when its time is over."""
UNMOUNT_TIMEOUT = 70.0
LOOK_TIMEOUT = 30.0
"""Seconds for looking at what has just been connected."""
REST = 5.0
"""Seconds that helpers get to end before what they look at is unmounted lazily: they hang."""
REPOSITORY = "repository"


class Connector:
    """Its deeds are for worker threads, one at a time for each connection."""

    def __init__(self, host: Host, settings: Callable[[], Settings], remotes: Remotes) -> None:
        self._host = host
        self._settings = settings
        self._remotes = remotes
        self._at_work: dict[str, float] = {}
        """What root is mounting or unmounting, and when at the latest that ends (monotonic clock)."""

    @property
    def patience(self) -> float:
        """Return after how many seconds mounting is given up."""
        return min(max(self._settings().mount_timeout, 1.0), MOST_PATIENCE)

    def at_work(self) -> str:
        """Say what is being mounted or unmounted, and how long that may last; '' for nothing. Any thread."""
        works = dict(self._at_work)
        if not works:
            return ""
        left = max(0.0, max(works.values()) - time.monotonic())
        return f"{', '.join(sorted(works))} is being connected or disconnected, for {left:.0f} s more at most"

    def bring_up(self, connection: Connection, password: str) -> None:
        """Have it show, and see that it can be used. Raises, and then what was made is gone again."""
        os.makedirs(os.path.dirname(self.path(connection)), mode=0o755, exist_ok=True)
        made = self._mount(connection, password) if connection.vfs else self._link(connection)
        try:
            self._look(connection)
        except DriverError:
            if made:
                with contextlib.suppress(DriverError):  # the first error says more
                    self.take_down(connection)
            raise
        if made:
            log.info("Connected storage=%s at=%s", connection.remote, connection.name)
            self._host.event("storage.connected", storage=connection.remote)

    def take_down(self, connection: Connection) -> None:
        """Have it show no more. Raises ConnectionBusy, MountFailed; then it still shows."""
        with self._remotes.rest(self.path(connection), REST) as ended:
            gone = self._unmount(connection, lazy=not ended) if connection.vfs else self._unlink(connection)
        if gone:
            log.info("Disconnected storage=%s at=%s", connection.remote, connection.name)
            self._host.event("storage.disconnected", storage=connection.remote)

    def _mount(self, connection: Connection, password: str) -> bool:
        patience = self.patience
        more: dict[str, Any] = {"password": password} if password else {}
        if patience != USUAL_PATIENCE:
            more["patience"] = patience
        try:
            with self._working(connection, patience + MARGIN) as timeout:
                made: bool = self._host.root.call(
                    "mount.mount",
                    timeout=timeout,
                    kind=connection.vfs,
                    source=connection.remote,
                    target=self.path(connection),
                    options=connection.options,
                    **more,
                )
        except (NotAllowed, Invalid, Unsupported) as error:
            raise MountUnknown(what=connection.remote, reason=error) from error
        except ActionError as error:
            raise MountFailed(action="mount", what=connection.remote, reason=error) from error
        return made

    def _unmount(self, connection: Connection, *, lazy: bool) -> bool:
        target = self.path(connection)
        try:
            with self._working(connection, UNMOUNT_TIMEOUT) as timeout:
                gone: bool = self._host.root.call("mount.unmount", timeout=timeout, target=target, lazy=lazy)
        except Busy as error:
            raise ConnectionBusy(what=connection.remote, reason=error) from error
        except ActionError as error:
            raise MountFailed(action="unmount", what=connection.remote, reason=error) from error
        return gone

    @contextlib.contextmanager
    def _working(self, connection: Connection, timeout: float) -> Iterator[float]:
        """Have it told that root is at work on this, for as long as that lasts."""
        self._at_work[connection.remote] = time.monotonic() + timeout
        try:
            yield timeout
        finally:
            self._at_work.pop(connection.remote, None)

    def _link(self, connection: Connection) -> bool:
        files = self._repository()
        try:
            files.make_link(connection.name, connection.remote)
            return True
        except FileExistsError:
            return self._see_link(files, connection)
        except OSError as error:
            raise ConnectionFailed(action=f"connecting {connection.remote}", reason=error) from error

    def _see_link(self, files: Files, connection: Connection) -> bool:
        try:
            there = files.read_link(connection.name)
        except OSError as error:
            raise ConnectionFailed(
                action=f"connecting {connection.remote}", reason=f"its place is taken: {error}"
            ) from error
        if there.rstrip("/") != connection.remote:
            raise ConnectionFailed(action=f"connecting {connection.remote}", reason=f"its place leads to {there}")
        return False

    def _unlink(self, connection: Connection) -> bool:
        files = self._repository()
        try:
            files.read_link(connection.name)
            files.remove_file(connection.name)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ConnectionBusy(what=connection.remote, reason=f"its place is something else: {error}") from error
        return True

    def _look(self, connection: Connection) -> None:
        """Raise unless it is a directory in which we may do what storage is for."""
        files = Files(self._remotes.get(connection.key, connection.remote, self.path(connection)), LOOK_TIMEOUT)
        how = "rx" if "ro" in connection.options.split(",") else "rwx"
        try:
            allowed = files.may("", how)
        except PermissionError as error:
            raise NoPermission(action="connect", path=connection.remote, reason=error.strerror) from error
        except (OSError, StorageHangs) as error:
            raise ConnectionFailed(action=f"connecting {connection.remote}", reason=error) from error
        if not allowed:
            raise NoPermission(
                action="connect", path=connection.remote, reason=f"it must be allowed to user {os.geteuid()}"
            )

    def _repository(self) -> Files:
        root = self._settings().mounts
        return Files(self._remotes.get(REPOSITORY, root, root), LOOK_TIMEOUT)

    def path(self, connection: Connection) -> str:
        return f"{self._settings().mounts}/{connection.name}"
