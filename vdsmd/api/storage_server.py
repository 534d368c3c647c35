"""Verbs about connecting storage to this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers.storage.contract import Type, is_uuid
from drivers.storage.errors import InvalidParameter
from vdsmd.api import codes
from vdsmd.api.table import Reply, verb
from vdsmd.api.wire import Number, Struct, Uuid

if TYPE_CHECKING:
    from drivers.storage.connections.connections import Outcome
    from vdsmd.daemon import Daemon

# What a server that is away may take (`[irs] mount_timeout`), also when somebody else is just trying it, too.
CONNECT_TIMEOUT = 450.0


@verb("connectStorageServer", gated=False, message="OK", timeout=CONNECT_TIMEOUT, cli="storage connect")
def connect_storage_server(daemon: Daemon, domType: Number, spUUID: Uuid, conList: list[Struct]) -> Reply:
    """Connect storage: mount it below the repository or, for a directory of this host, link it there.

    `domType` is 1 (NFS), 4 (local directory), 5 (CIFS), 6 (any file system) or 7 (Gluster). Each item of `conList` has an
    `id` of the caller's and `connection` (the remote path); NFS takes `protocol_version` (default 3, or auto), `retrans`,
    `timeout` and `mnt_options`, others `vfs_type` and `mnt_options`. Each succeeds or fails alone: `statuslist` has `id`
    and `status` of each, 0 when it is connected, also when it was before.
    """
    return _statuses(conList, daemon.storage.connections.connect(_type(domType, spUUID), conList))


@verb("disconnectStorageServer", gated=False, message="OK", timeout=CONNECT_TIMEOUT, cli="storage disconnect")
def disconnect_storage_server(daemon: Daemon, domType: Number, spUUID: Uuid, conList: list[Struct]) -> Reply:
    """Take back what connectStorageServer did. Takes and returns the same. What is in use stays, with status 452."""
    return _statuses(conList, daemon.storage.connections.disconnect(_type(domType, spUUID), conList))


@verb("validateStorageServerConnection", gated=False, message="OK", timeout=CONNECT_TIMEOUT, cli="storage validate")
def validate_storage_server_connection(daemon: Daemon, domType: Number, spUUID: Uuid, conList: list[Struct]) -> Reply:
    """Say whether storage can be connected, by connecting it for a moment. Takes and returns what connectStorageServer does."""
    return _statuses(conList, daemon.storage.connections.validate(_type(domType, spUUID), conList))


@verb("storageServer_ConnectionRefs_acquire", gated=False, message="OK", timeout=CONNECT_TIMEOUT, cli="storage acquire")
def connection_refs_acquire(daemon: Daemon, conRefArgs: Struct) -> Reply:
    """Have storage connected for as long as somebody holds a reference to it.

    `conRefArgs` has, by the caller's id of each reference, `type` (nfs, posixfs, localfs) and `params`: `export`, `spec` and
    `vfstype`, or `path`. `results` has the status of each: 0, or why it is not connected; the reference is held all the same.
    """
    return {"results": _results(daemon.storage.connections.acquire(conRefArgs))}


@verb("storageServer_ConnectionRefs_release", gated=False, message="OK", timeout=CONNECT_TIMEOUT, cli="storage release")
def connection_refs_release(daemon: Daemon, refIDs: list[str]) -> Reply:
    """Let references go. What nobody holds any more is disconnected. `results` has the status of each."""
    return {"results": _results(daemon.storage.connections.release(refIDs))}


@verb("storageServer_ConnectionRefs_statuses", gated=False, message="OK", cli="storage references")
def connection_refs_statuses(daemon: Daemon) -> Reply:
    """Return all references as `connectionslist`, by id: whether it is `connected`, its `lastError`, its `connectionInfo`."""
    connections = daemon.storage.connections
    return {
        "connectionslist": {
            reference.id: {
                "connected": connections.is_connected(reference.connection),
                "lastError": {
                    "code": codes.number(reference.wire) if reference.wire else 0,
                    "message": reference.error,
                },
                "connectionInfo": {"type": reference.kind, "params": dict(reference.params)},
            }
            for reference in connections.references()
        }
    }


def _type(number: int, pool: str) -> Type:
    if pool and not is_uuid(pool):
        raise InvalidParameter(what="spUUID", reason=f"{pool[:60]!a} is no UUID")
    try:
        return Type(number)
    except ValueError:
        raise InvalidParameter(what="domType", reason=f"{number} is no type of storage") from None


def _statuses(items: list[dict[str, Any]], outcomes: list[Outcome]) -> Reply:
    told = zip(items, outcomes, strict=True)
    return {"statuslist": [{"id": str(item.get("id", "")), "status": _status(outcome)} for item, outcome in told]}


def _results(outcomes: dict[str, Outcome]) -> dict[str, int]:
    return {name: _status(outcome) for name, outcome in outcomes.items()}


def _status(outcome: Outcome) -> int:
    return codes.OK if outcome is None else codes.code_of(outcome)
