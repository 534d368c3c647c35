"""StorageDriver: the owner of connections, domains' monitors and helpers, and the way to what can be done with them.

It promises that nothing here waits for storage but in worker threads, and there never for longer than was agreed. `parts` has
the deeds; `vdsmd.api.storage_server` and `vdsmd.api.storage_domain` have who calls them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from drivers.base import Host
from drivers.storage.contract import is_uuid, settings
from drivers.storage.helpers.remotes import Remotes
from drivers.storage.leases.keeping import Keeping
from drivers.storage.record import StorageRecord
from state.process import boot_id
from state.records import Entry, Record, RecordError, decode, encode, pack, unpack

if TYPE_CHECKING:
    from drivers.storage.connections.connections import Connections
    from drivers.storage.domains.domains import Domains
    from drivers.storage.domains.isos import Isos
    from drivers.storage.domains.making import Maker
    from drivers.storage.domains.monitors import Monitors
    from drivers.storage.parts import Parts
    from drivers.storage.pools.pools import Pools
    from drivers.storage.pools.spm import Spm, Work
    from drivers.storage.pools.spools import PoolSpool

log = logging.getLogger("storage")

CHECKPOINT = "connections"
FOLLOWING = "storage/pools"


class StorageDriver:
    """An owner (`drivers.base.Owner`)."""

    name = "storage"
    record: type[Record] = StorageRecord

    def __init__(self, host: Host, config: Any) -> None:
        self.on_change: Callable[[str, bool], None] = lambda uuid, valid: None
        """Called in the loop's thread when a watched domain has become valid, or is so no more."""
        self.work: Work | None = None
        """The tasks of this host, which go on only while it is the SPM."""
        self.number: Callable[[str], int] = lambda name: 0
        """Returns the number of a status code by its name, for tasks that are written down in a pool. In workers."""
        self._host = host
        self._settings = settings(config)
        self._remotes = Remotes(host, lambda: self._settings)
        self._keeping = Keeping(host, self._remotes)
        self._left = StorageRecord()
        """What the previous run left, until the parts that it is for are there."""
        self._parts: Parts | None = None
        self._guard = threading.RLock()

    # What there is

    @property
    def parts(self) -> Parts:
        """All the rest, imported when it is first needed: `vdsmd.deferred` has it imported right after the start."""
        with self._guard:
            if self._parts is None:
                from drivers.storage.parts import Parts

                parts = Parts(self._host, lambda: self._settings, self._remotes, self._keeping, self._checkpoint)
                parts.connections.restore(self._left.connections, self._left.references)
                parts.domains.remember({one.key: one.root for one in self._left.helpers if is_uuid(one.key)})
                parts.monitors.restore(self._left.monitored)
                parts.monitors.on_change = self._changed
                parts.pools.restore(self._left.pools)
                parts.spools.number = lambda name: self.number(name)
                if self.work is not None:
                    parts.spm.work = self.work
                self._parts = parts
            return self._parts

    @property
    def connections(self) -> Connections:
        return self.parts.connections

    @property
    def domains(self) -> Domains:
        return self.parts.domains

    @property
    def maker(self) -> Maker:
        return self.parts.maker

    @property
    def isos(self) -> Isos:
        return self.parts.isos

    @property
    def monitors(self) -> Monitors:
        return self.parts.monitors

    @property
    def pools(self) -> Pools:
        return self.parts.pools

    @property
    def spm(self) -> Spm:
        return self.parts.spm

    def spool(self, pool: str) -> PoolSpool | None:
        """Return where the tasks of a pool are written down, None when it is not connected. In a worker."""
        return self.parts.spools.spool(pool)

    def host_lives(self, domain: str, host_id: int) -> bool | None:
        """Return whether the host renews its id on the domain, None if that cannot be seen. In a worker."""
        return self.parts.leasing.lives(domain, host_id)

    def prepare(self, drive: dict[str, Any]) -> str:
        """See `drivers.vm.changes.images.Images`. In a worker."""
        return self.parts.drives.prepare(drive)

    def mark(self, drive: dict[str, Any], volume: str, *, legal: bool) -> None:
        """See `drivers.vm.changes.images.Images`. In a worker."""
        self.parts.drives.mark(drive, volume, legal=legal)

    def release(self, drive: dict[str, Any]) -> None:
        """See `drivers.vm.changes.images.Images`. In a worker."""
        self.parts.drives.release(drive)

    def promised(self) -> dict[str, Any]:
        """Return what can be relied on here: see `drivers.storage.leases.promises.told`. In a worker."""
        from drivers.storage.leases import promises  # imported by now (vdsmd.deferred)

        return promises.told()

    def vitals(self, number: Callable[[str], int]) -> dict[str, dict[str, Any]]:
        """Return how the monitored domains fare, by id, as repoStats and getVdsStats tell it. `number` gives the status code
        of a name. Answers from memory."""
        return self.monitors.told(number)

    # The owner

    def snapshot(self) -> StorageRecord:
        record = self._kept()
        record.helpers = self._remotes.snapshot()
        return record

    def restore(self, record: Record) -> None:
        assert isinstance(record, StorageRecord)
        self._left = record
        self._remotes.restore(record.helpers)
        self._keeping.restore(record.keeper)

    def recover(self) -> None:
        """Take what the checkpoint says, if it is of this boot: connections are gone after another."""
        directory = self._host.checkpoints.below("storage")
        try:
            data = directory.read(CHECKPOINT)
            record = decode(StorageRecord, unpack(Entry, data, CHECKPOINT), CHECKPOINT) if data else StorageRecord()
        except (RecordError, OSError) as error:
            directory.set_aside(CHECKPOINT, str(error))
            return
        if record.boot == boot_id():
            record.pools = [msgspec.structs.replace(pool, role="Free", way="") for pool in record.pools]
            self._left = record

    def start(self) -> None:
        monitors = self.monitors
        self._remotes.start()
        self._keeping.start()
        monitors.start()
        self.parts.host_ids.start()
        self.parts.spm.verify()
        if self.pools.all():
            self._host.submit(self.pools.follow_all, key=FOLLOWING, timeout=0)

    def unsafe(self) -> str | None:
        """A mount that is on its way has a caller who is owed the answer, and no other way to be told of its end."""
        return (self._parts.connections.at_work() or None) if self._parts is not None else None

    def settle(self) -> None:
        """Calls on storage that hangs must not keep us from going."""
        self._remotes.departing = True

    def resume(self) -> None:
        self._remotes.departing = False

    def quiesce(self, deadline: float) -> None:
        if self._parts is not None:
            self._parts.monitors.quiesce()
            self._parts.host_ids.quiesce()
        self._keeping.quiesce()
        self._remotes.quiesce(deadline)

    def reload(self, config: Any) -> None:
        """Take over a changed configuration. Another repository holds from the next start on."""
        self._settings = settings(config)
        self.monitors.reload()

    # Help

    def _kept(self) -> StorageRecord:
        parts = self._parts
        if parts is None:
            left = self._left
            return StorageRecord(
                connections=left.connections,
                references=left.references,
                monitored=left.monitored,
                pools=left.pools,
                keeper=self._keeping.snapshot(),
            )
        return StorageRecord(
            connections=parts.connections.known(),
            references=parts.connections.references(),
            monitored=parts.monitors.now(),
            pools=parts.pools.all(),
            keeper=self._keeping.snapshot(),
        )

    def _changed(self, uuid: str, valid: bool) -> None:
        if valid and any(uuid in pool.members for pool in self.pools.all()):
            self._host.submit(self.pools.follow_all, key=FOLLOWING, timeout=0)
        self.on_change(uuid, valid)

    def _checkpoint(self) -> None:
        """Write down what a run after a crash must know. Any thread."""
        with self._guard:
            record = self._kept()
            record.boot = boot_id()
            try:
                self._host.checkpoints.below("storage").write(CHECKPOINT, pack(encode(record)))
            except OSError as error:
                log.error("The checkpoint of storage is out of date error=%s", error)
