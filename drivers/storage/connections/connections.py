"""Connections: storage that shows in the repository because a client wants it there.

It promises that connecting what is connected changes nothing, and that connections fail or succeed each alone and in bounded
time. Two ways lead here, and they hold apart from each other: clients that connect and disconnect, and clients that hold
references.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import DriverError
from drivers.storage.connections.connector import LOOK_TIMEOUT, MARGIN, Connector
from drivers.storage.connections.mounts import mounted, wanted
from drivers.storage.contract import Settings, Type
from drivers.storage.errors import ConnectionFailed, InvalidParameter, NoSuchReference, ReferenceInUse
from drivers.storage.record import Connection, Known, Reference
from drivers.storage.together import together

REFERENCE_TYPES = {"nfs": Type.NFS, "posixfs": Type.POSIXFS, "localfs": Type.LOCALFS, "iscsi": Type.ISCSI}

Outcome = DriverError | None


class Connections:
    """All connections, by the name of their place. Its deeds are for worker threads."""

    def __init__(
        self, host: Host, settings: Callable[[], Settings], connector: Connector, changed: Callable[[], None]
    ) -> None:
        self._host = host
        self._settings = settings
        self._connector = connector
        self._changed = changed
        self._known: dict[str, Known] = {}
        self._references: dict[str, Reference] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    # What is kept

    def known(self) -> list[Known]:
        return list(self._known.values())

    def references(self) -> list[Reference]:
        return list(self._references.values())

    def restore(self, known: list[Known], references: list[Reference]) -> None:
        self._known = {one.connection.name: one for one in known}
        self._references = {reference.id: reference for reference in references}

    def places(self) -> dict[str, str]:
        """Return where storage shows, by the key of its helper: what we have connected, and what is mounted there anyway."""
        root = self._settings().mounts
        found = {one.connection.key: self._connector.path(one.connection) for one in self.known()}
        real = os.path.realpath(root)
        for target in mounted(real):
            name = os.path.relpath(target, real)
            found.setdefault(f"mount/{name}", f"{root}/{name}")
        return found

    def is_connected(self, connection: Connection) -> bool:
        """Whether it shows, as far as can be said without asking the storage."""
        if connection.name not in self._known:
            return False
        root = os.path.realpath(self._settings().mounts)
        return not connection.vfs or f"{root}/{connection.name}" in mounted(root)

    def at_work(self) -> str:
        """Say what a re-exec has to wait for, '' for nothing. Any thread."""
        return self._connector.at_work()

    # What clients ask for

    def connect(self, type_: Type, items: list[dict[str, Any]]) -> list[Outcome]:
        """Connect all of them, and return how it went with each. Raises for a type that is not supported at all."""
        return self._each(type_, items, self._connect_one)

    def disconnect(self, type_: Type, items: list[dict[str, Any]]) -> list[Outcome]:
        return self._each(type_, items, self._disconnect_one)

    def validate(self, type_: Type, items: list[dict[str, Any]]) -> list[Outcome]:
        """Say of each whether it could be connected, by doing so; what was not connected before is not afterwards."""
        return self._each(type_, items, self._validate_one)

    def acquire(self, wanted_: Mapping[str, Any]) -> dict[str, Outcome]:
        """Take references, and connect what they stand for. One that fails is kept, and tells why."""
        outcomes = together(self._host, [lambda i=i, a=a: self._acquire(i, a) for i, a in wanted_.items()])  # type: ignore[misc]
        return {name: _outcome(outcome) for name, outcome in zip(wanted_, outcomes, strict=True)}

    def release(self, names: list[str]) -> dict[str, Outcome]:
        """Let references go; what nobody holds any more is disconnected."""
        outcomes = together(self._host, [lambda i=i: self._release(i) for i in names])  # type: ignore[misc]
        return {name: _outcome(outcome) for name, outcome in zip(names, outcomes, strict=True)}

    # One of them

    def _each(
        self, type_: Type, items: list[dict[str, Any]], deed: Callable[[Type, dict[str, Any]], None]
    ) -> list[Outcome]:
        if not type_.is_file:
            wanted(type_, {}, self._settings())
        calls = [lambda item=item: deed(type_, item) for item in items]
        return [_outcome(outcome) for outcome in together(self._host, calls)]

    def _connect_one(self, type_: Type, item: dict[str, Any]) -> None:
        connection = wanted(type_, item, self._settings())
        with self._alone(connection):
            self._connector.bring_up(connection, str(item.get("password") or ""))
            self._keep(Known(connection=connection))

    def _disconnect_one(self, type_: Type, item: dict[str, Any]) -> None:
        connection = wanted(type_, item, self._settings())
        with self._alone(connection):
            self._let_go(connection)

    def _validate_one(self, type_: Type, item: dict[str, Any]) -> None:
        connection = wanted(type_, item, self._settings())
        with self._alone(connection):
            self._connector.bring_up(connection, str(item.get("password") or ""))
            if connection.name not in self._known:
                self._connector.take_down(connection)

    def _acquire(self, name: str, arguments: Any) -> None:
        if not isinstance(arguments, dict) or not isinstance(arguments.get("params"), dict):
            raise InvalidParameter(what=f"reference {name}", reason="expected type and params")
        kind, params = str(arguments.get("type")), arguments["params"]
        type_ = REFERENCE_TYPES.get(kind.lower())
        if type_ is None:
            raise InvalidParameter(
                what=f"reference {name}", reason="its type is none of nfs, posixfs, localfs and iscsi"
            )
        reference = Reference(
            id=name, connection=wanted(type_, params, self._settings()), kind=kind, params=_public(params)
        )
        with self._alone(reference.connection):
            self._refer(reference)
            self._try_reference(reference, str(params.get("password") or ""))

    def _refer(self, reference: Reference) -> None:
        with self._guard:
            there = self._references.get(reference.id)
            if there is not None and there.connection != reference.connection:
                raise ReferenceInUse(kind="reference", name=reference.id)
            self._references[reference.id] = reference
        self._changed()

    def _try_reference(self, reference: Reference, password: str) -> None:
        connection = reference.connection
        try:
            self._connector.bring_up(connection, password)
        except DriverError as error:
            self._references[reference.id] = msgspec.structs.replace(
                reference, wire=type(error).wire or ConnectionFailed.wire, error=str(error)
            )
            self._changed()
            raise
        known = self._known.get(connection.name)
        self._keep(Known(connection=connection, held=known is not None and known.held))

    def _release(self, name: str) -> None:
        reference = self._references.get(name)
        if reference is None:
            raise NoSuchReference(kind="reference", name=name)
        with self._alone(reference.connection):
            self._references.pop(name, None)
            self._changed()
            known = self._known.get(reference.connection.name)
            if known is not None and not known.held and not self._is_referred(reference.connection):
                self._connector.take_down(reference.connection)
                self._forget(reference.connection)

    def _let_go(self, connection: Connection) -> None:
        known = self._known.get(connection.name)
        if self._is_referred(connection):
            if known is not None:
                self._keep(Known(connection=connection, held=False))
            return
        self._connector.take_down(connection)
        self._forget(connection)

    def _is_referred(self, connection: Connection) -> bool:
        return any(reference.connection.name == connection.name for reference in self.references())

    def _keep(self, known: Known) -> None:
        if self._known.get(known.connection.name) != known:
            self._known[known.connection.name] = known
            self._changed()

    def _forget(self, connection: Connection) -> None:
        if self._known.pop(connection.name, None) is not None:
            self._changed()

    @contextlib.contextmanager
    def _alone(self, connection: Connection) -> Iterator[None]:
        """Let one at a time work on a place."""
        with self._guard:
            lock = self._locks.setdefault(connection.name, threading.Lock())
        if not lock.acquire(timeout=self._connector.patience + MARGIN + LOOK_TIMEOUT):
            raise ConnectionFailed(action=f"connecting {connection.remote}", reason="somebody else is still at it")
        try:
            yield
        finally:
            lock.release()


def _outcome(result: Any) -> Outcome:
    if isinstance(result, Exception) and not isinstance(result, DriverError):
        raise result
    return result if isinstance(result, DriverError) else None


def _public(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a connection as they may be kept and told: plain, and without secrets."""
    return {
        name: value
        for name, value in params.items()
        if isinstance(value, str | int) and name not in ("password", "user", "credentials")
    }
