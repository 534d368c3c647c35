"""Carriers: what we know of the processes that carry long calls to libvirt for us (see `drivers.vm.travel.carrier`).

It promises that a carrier which may still act is never taken for one that has ended, whoever started it: its order is locked
from before it is there until it is gone. Orders lie in the run directory, readable for nobody else: they may hold passwords.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable

import msgspec

from drivers.base import Host
from drivers.vm.contract import CARRIER, name_of
from drivers.vm.travel.carrier import ORDER_FD, Done, Order, done_path
from state.children import Exit
from state.release import ROOT


class Carriers:
    """One for each machine. `start` is for the loop's thread, the others are for any."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = os.path.join(host.run_dir, "carried")

    def start(self, order: Order, on_exit: Callable[[Exit], None]) -> None:
        """Have it carried. Raises OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self.forget(order.vm_id)
        path = self._path(order.vm_id)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(number, msgspec.json.encode(order))
            fcntl.flock(number, fcntl.LOCK_EX)
            # From our own release, whatever has become of the working directory.
            env = {**os.environ, "PYTHONPATH": ROOT, "PYTHONSAFEPATH": "1"}
            argv = [sys.executable, "-m", "drivers.vm.travel.carrier", path]
            name = name_of(order.vm_id, CARRIER)
            self._host.children.forget(name)
            self._host.children.spawn(name, argv, env=env, files={ORDER_FD: number}, on_exit=on_exit)
        finally:
            os.close(number)

    def at_work(self, vm_id: str) -> bool:
        """Say whether one may still act for the machine."""
        try:
            number = os.open(self._path(vm_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(number)
        return False

    def done(self, vm_id: str) -> Done | None:
        """Return how the last one ended; None when it has not, or nobody knows."""
        try:
            with open(done_path(self._path(vm_id)), "rb") as file:
                return msgspec.json.decode(file.read(), type=Done)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def order(self, vm_id: str) -> Order | None:
        """Return what the last one was to carry."""
        try:
            with open(self._path(vm_id), "rb") as file:
                return msgspec.json.decode(file.read(), type=Order)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def left(self) -> list[str]:
        """Return the ids of machines of which there is anything here."""
        try:
            return sorted({name.partition(".")[0] for name in os.listdir(self._folder)})
        except FileNotFoundError:
            return []

    def forget(self, vm_id: str) -> None:
        """Remove what is left of the last one."""
        for path in (self._path(vm_id), done_path(self._path(vm_id))):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue

    def _path(self, vm_id: str) -> str:
        return os.path.join(self._folder, vm_id)
