"""Store: the files in which configurations and the journal of a change lie.

It promises that each is whole or not there, and that what cannot be read is set aside, with a message, and counts as not there.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import msgspec

from drivers.network.model import NEWEST, Configuration, Step
from state.directory import StateDirectory
from state.process import boot_id
from state.records import UNREADABLE, Entry, Migration, Record, RecordError, decode, encode

K = TypeVar("K", bound=Record)

RUNNING, SAFE = "running.json", "safe.json"
JOURNAL, PROGRESS = "journal", "progress"


class Stored(Record):
    """A configuration, and the boot in which it was in force."""

    version: ClassVar[int] = NEWEST
    migrations: ClassVar[dict[int, Migration]] = {1: dict}

    boot: str
    configuration: Configuration


class Change(Record):
    """What a change was about to do: written down before it begins."""

    version: ClassVar[int] = NEWEST
    migrations: ClassVar[dict[int, Migration]] = {1: dict}

    boot: str
    before: Configuration
    after: Configuration
    steps: list[Step]


class Store:
    """`lasting` is on a disk, `passing` where a reboot may empty it."""

    def __init__(self, lasting: StateDirectory, passing: StateDirectory) -> None:
        self._lasting = lasting
        self._passing = passing

    def load(self, name: str) -> Stored | None:
        """Return a configuration, None when there is none that can be read."""
        return self._read(self._lasting, name, Stored)

    def save(self, name: str, configuration: Configuration) -> None:
        """Raises OSError, and then the old one stays."""
        stored = Stored(boot=boot_id(), configuration=configuration)
        self._lasting.write(name, _text(stored), sync=True)

    # The journal

    def begin(self, before: Configuration, after: Configuration, steps: list[Step]) -> None:
        """Write down what is about to be done. Raises OSError, and then nothing may be done."""
        self._passing.write(PROGRESS, b"-1")
        self._passing.write(JOURNAL, _text(Change(boot=boot_id(), before=before, after=after, steps=steps)))

    def reach(self, step: int) -> None:
        """Write down that this step is about to be done (or, backwards, has not been undone yet)."""
        self._passing.write(PROGRESS, b"%d" % step)

    def end(self) -> None:
        """The change is whole, or has been taken back wholly."""
        self._passing.remove(JOURNAL)
        self._passing.remove(PROGRESS)

    def unfinished(self) -> tuple[Change, int] | None:
        """Return the change that was under way, and the last step that may have been done. That of another boot is gone with
        it."""
        change = self._read(self._passing, JOURNAL, Change)
        if change is None or change.boot != boot_id():
            self.end()
            return None
        progress = (self._passing.read(PROGRESS) or b"").decode("ascii", "replace")
        last = len(change.steps) - 1
        return change, min(int(progress), last) if progress.removeprefix("-").isdigit() else last

    def _read(self, directory: StateDirectory, name: str, kind: type[K]) -> K | None:
        data = directory.read(name)
        if data is None:
            return None
        try:
            return decode(kind, msgspec.json.decode(data, type=Entry), name)
        except (RecordError, *UNREADABLE) as error:
            directory.set_aside(name, str(error))
            return None


def _text(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(encode(record)), indent=2) + b"\n"
