"""Remembered: what guests have told, where a crash of the daemon cannot reach it.

It promises that a guest has its file written at most once in INTERVAL seconds, and not at all while it tells nothing new; that
a file is only believed of the very run of a machine of which it was written; and that no guest can have much written. All calls
come from the loop's thread. Imported after the first answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec

from drivers.base import Host
from drivers.vm.agents.guest import Guest
from drivers.vm.agents.told import Kept, lasting
from drivers.vm.machine import Machine
from state.directory import StateDirectory
from state.process import boot_id
from state.records import UNREADABLE, Entry, Record, RecordError, decode, encode, pack, unpack

log = logging.getLogger("guest")

INTERVAL = 5.0
LARGEST = 1 << 17
"""Characters. Of a guest that tells more, its lists are told anew."""


class GuestRecord(Record):
    """What one guest told. run: when its machine was created, seconds since the epoch; boot: of the host's kernel, whose clock
    counts. `kept` is opaque text, as in the record of all machines."""

    run: float
    boot: str
    kept: str


class Remembered:
    """One file for each guest, by the id of its machine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._directory: StateDirectory | None = None

    def write(self, guests: Iterable[Guest]) -> None:
        """Have those written down that have told something new, in a worker."""
        fresh: dict[str, tuple[float, Kept]] = {}
        for guest in guests:
            if guest.kept.unwritten:
                guest.kept.unwritten = False
                fresh[guest.machine.vm_id] = guest.machine.created, lasting(guest.kept)
        if fresh:
            self._host.submit(partial(self._write, fresh), key="guests")

    def forget(self, vm_id: str) -> None:
        """Remove what is known of the guest, after what is being written of it."""
        self._host.submit(partial(self._files().remove, vm_id), key="guests")

    def read(self, machines: Mapping[str, Machine]) -> dict[str, Kept]:
        """Return what is known of the guests in these machines. Files of others are removed."""
        found = {vm_id: self._read(vm_id, machines.get(vm_id)) for vm_id in self._files().names()}
        return {vm_id: kept for vm_id, kept in found.items() if kept is not None}

    def _files(self) -> StateDirectory:
        if self._directory is None:
            self._directory = self._host.checkpoints.below("guests")
        return self._directory

    def _write(self, fresh: Mapping[str, tuple[float, Kept]]) -> None:
        for vm_id, (run, kept) in fresh.items():
            text = msgspec.json.encode(kept).decode()
            if len(text) > LARGEST:
                text = msgspec.json.encode(_without_lists(kept)).decode()
            try:
                self._files().write(vm_id, pack(encode(GuestRecord(run=run, boot=boot_id(), kept=text))))
            except OSError as error:
                log.warning("What a guest told is not written down vm=%s error=%s", vm_id, error)

    def _read(self, vm_id: str, machine: Machine | None) -> Kept | None:
        try:
            record = decode(GuestRecord, unpack(Entry, self._files().read(vm_id) or b"", vm_id), vm_id)
            if machine is None or machine.is_down or record.run != machine.created or record.boot != boot_id():
                self._files().remove(vm_id)
                return None
            return msgspec.json.decode(record.kept, type=Kept)
        except (RecordError, OSError, *UNREADABLE) as error:
            self._files().set_aside(vm_id, str(error))
            return None


def _without_lists(kept: Kept) -> Kept:
    """Return it without what can be long."""
    none = {"apps_list": msgspec.UNSET, "disks_usage": msgspec.UNSET, "net_ifaces": msgspec.UNSET}
    told = msgspec.structs.replace(kept.report.told, **none)
    report = msgspec.structs.replace(kept.report, told=told)
    return msgspec.structs.replace(kept, report=report, survey=msgspec.structs.replace(kept.survey, **none))
