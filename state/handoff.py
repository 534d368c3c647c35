"""The hand-off: what one run of the daemon leaves to the next, in one document.

    old run    collect -> store -> depart (exec)
    new run    receive -> restore every owner -> settle -> commit

It promises that a document is used only by the process it was written for, in the boot it was written in, and that it stays on
disk until the new run has committed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn, TypeVar

import msgspec

from state.children import Child, ChildTable
from state.directory import StateDirectory
from state.fds import FdTable, Held
from state.process import boot_id, start_time
from state.records import Entry, Part, Record, RecordError, decode, pack, unpack
from state.records import encode as encode_record

log = logging.getLogger("state.handoff")

R = TypeVar("R", bound=Record)

FILE = "handoff"
FORMAT = 1


class Step(Part, frozen=True, kw_only=True):
    """A step of the hand-off, and the milliseconds it took."""

    name: str
    ms: float


class Document(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All that crosses. Times are of the monotonic clock, in seconds; the clock goes on over an exec.

    `closed_at`: when the pause began. `priority`: the nice value to go back to after it.
    """

    format: int
    nonce: str
    boot_id: str
    pid: int
    start_time: int
    release: str
    generation: int
    arguments: list[str]
    closed_at: float
    departed_at: float
    priority: Annotated[int, msgspec.Meta(ge=-20, le=19)]
    steps: list[Step]
    owners: dict[str, Entry]
    fds: list[Held]
    children: list[Child]

    def record(self, owner: str, kind: type[R]) -> R | None:
        """Return what there is for the owner, if anything. Raises RecordError."""
        entry = self.owners.get(owner)
        return None if entry is None else decode(kind, entry, f"owners.{owner}")


class HandOff:
    """What this run got, and what it will leave."""

    def __init__(self, directory: StateDirectory, document: Document | None = None) -> None:
        self._directory = directory
        self.document = document
        self.fds = FdTable(document.fds if document else ())
        self.children = ChildTable(self.fds, document.children if document else ())

    @property
    def generation(self) -> int:
        """The number of re-execs since the cold start."""
        return self.document.generation if self.document else 0

    def record(self, owner: str, kind: type[R]) -> R | None:
        """Return what the previous run left for the owner, if anything. Raises RecordError."""
        return self.document.record(owner, kind) if self.document else None

    def settle(self) -> None:
        """Every owner is restored: close and forget what nobody claimed."""
        self.fds.close_unclaimed()
        self.children.drop_unclaimed()

    def commit(self) -> None:
        """The new run serves: the document is disposable."""
        self._directory.remove(FILE)

    def collect(
        self,
        records: Mapping[str, Record],
        *,
        release: str,
        arguments: Sequence[str],
        closed_at: float = 0.0,
        priority: int = 0,
        steps: Sequence[Step] = (),
    ) -> Document:
        """Return the document as it would be left now. `closed_at` is 0.0 for a rehearsal."""
        pid = os.getpid()
        return Document(
            format=FORMAT,
            nonce=os.urandom(16).hex(),
            boot_id=boot_id(),
            pid=pid,
            start_time=start_time(pid) or 0,
            release=release,
            generation=self.generation + 1,
            arguments=list(arguments),
            closed_at=closed_at,
            departed_at=time.monotonic(),
            priority=priority,
            steps=list(steps),
            owners={name: encode_record(record) for name, record in records.items()},
            fds=self.fds.snapshot(),
            children=self.children.snapshot(),
        )

    def free_bytes(self) -> int:
        """Return how many bytes can still be written where the document goes."""
        room = os.statvfs(self._directory.path)
        return room.f_bavail * room.f_frsize

    def store(self, document: Document, name: str = FILE) -> str:
        """Write the document and return its path. Raises OSError; then nothing has changed."""
        self._directory.write(name, pack(document))
        return os.path.join(self._directory.path, name)

    def depart(self, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
        """Become the code on disk. Returns only by raising OSError, and then everything is as before.

        Must be called from the main thread with no other thread of ours alive, with our signals blocked.
        """
        self.fds.open_for_exec()
        try:
            os.execve(argv[0], list(argv), dict(env))
        finally:
            self.fds.close_for_exec()


def receive(path: str, nonce: str) -> Document:
    """Return the document that the previous run left for this process. Raises RecordError when it is not for us, OSError."""
    document = load(path)
    _verify(document, nonce)
    return document


def load(path: str) -> Document:
    """Read a document. Raises RecordError or OSError."""
    with open(path, "rb") as file:
        return parse(file.read())


def parse(data: bytes) -> Document:
    """Return the document that is in the bytes of its file. Raises RecordError."""
    document: Document = unpack(Document, data, "document")
    if document.format != FORMAT:
        raise RecordError(f"document.format: {document.format} is not known here, only {FORMAT}")
    return document


def _verify(document: Document, nonce: str) -> None:
    pid = os.getpid()
    seen = {"nonce": nonce, "boot_id": boot_id(), "pid": pid, "start_time": start_time(pid)}
    for field, value in seen.items():
        if getattr(document, field) != value:
            raise RecordError(f"document.{field}: not written for this process")
