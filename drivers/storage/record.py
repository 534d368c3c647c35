"""What of storage must survive: connections, monitors and helpers, typed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from drivers.storage.contract import Type, Vitals
from drivers.storage.outside.frames import PROTOCOL
from state.records import Part, Record


class Connection(Part, frozen=True, kw_only=True):
    """Storage to connect. `name`: where it shows, below <repository>/mnt. `vfs` is '' where nothing is mounted (LOCALFS)."""

    type: Type
    remote: str
    name: str
    vfs: str = ""
    options: str = ""

    @property
    def key(self) -> str:
        """Of its helper."""
        return f"mount/{self.name}"


class Known(Part, frozen=True, kw_only=True):
    """A connection that is there. `held`: by a client that connected it, and has not disconnected it."""

    connection: Connection
    held: bool = True


class Reference(Part, frozen=True, kw_only=True):
    """A reference to a connection, and why it could not be connected last ('' when it was)."""

    id: str
    connection: Connection
    kind: str
    params: dict[str, Any]
    wire: str = ""
    error: str = ""


class Monitored(Part, frozen=True, kw_only=True):
    """A domain that is watched: for itself (`alone`), with the host's id there, or for the pool it is in, or both."""

    uuid: str
    alone: bool = False
    host_id: int = 0
    pool: str = ""
    vitals: Vitals = Vitals()


class Helper(Part, frozen=True, kw_only=True):
    """What is kept of a directory's helper. `serial` 0: there is none running. `abandoned`: serials of those given up."""

    key: str
    what: str
    root: str
    protocol: int = PROTOCOL
    serial: int = 0
    watch: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    abandoned: list[int] = []
    dropped: bool = False


class Pool(Part, frozen=True, kw_only=True):
    """A pool that this host is connected to. `members`: the states of its domains, by id. `told`: a client keeps the list of
    them, and who is the SPM is asked of the lease; otherwise all that stands on the master domain. `way`: who keeps others from
    being the SPM while we are: "sanlock" or "local"; '' while we are not."""

    uuid: str
    host_id: int
    master: str
    version: int
    members: dict[str, str] = {}
    told: bool = False
    role: str = "Free"
    lver: int = -1
    way: str = ""


class StorageRecord(Record):
    """A checkpoint is the same without helpers, which end when we crash, and with the boot in which connections are there."""

    connections: list[Known] = []
    references: list[Reference] = []
    monitored: list[Monitored] = []
    helpers: list[Helper] = []
    boot: str = ""
    pools: list[Pool] = []
    keeper: int = 0
    """The number of the process that holds leases; 0: there is none."""
