"""A record of storage with everything in it that one can have."""

from __future__ import annotations

from drivers.storage.contract import Type, Vitals
from drivers.storage.record import Connection, Helper, Known, Monitored, Reference, StorageRecord

DOMAIN = "5a1d5a0e-6d2f-4a0b-9a57-0e5ac2cc8d11"


def record() -> StorageRecord:
    local = Connection(type=Type.LOCALFS, remote="/data", name="_data")
    nfs = Connection(type=Type.NFS, remote="host:/e", name="host:_e", vfs="nfs", options="soft,vers=3")
    return StorageRecord(
        connections=[Known(connection=local), Known(connection=nfs, held=False)],
        references=[
            Reference(id="a", connection=nfs, kind="nfs", params={"export": "host:/e"}, wire="MountError", error="away")
        ],
        monitored=[
            Monitored(
                uuid=DOMAIN, alone=True, host_id=1, pool="p", vitals=Vitals(wire="", delay=0.25, checked=9.5, version=3)
            )
        ],
        helpers=[
            Helper(key=DOMAIN, what="domain", root="/repo/mnt/_data/d", serial=3, watch=10.0, abandoned=[1]),
            Helper(key="mount/_data", what="/data", root="/repo/mnt/_data", abandoned=[2], dropped=True),
        ],
    )
