"""FdTable: every descriptor that must outlive a re-exec, under one stable name.

Everyone else refers to a descriptor by name; numbers appear only here. It promises that nothing but the named descriptors
crosses an exec, that each is still the same file afterwards, and that what nobody takes is closed and said by name.

Some are to outlive even a crash: whoever holds or takes one with `stored=True` says so, and an observer keeps a duplicate of it
elsewhere. What must end with us (locks, leases) or means nothing to another process (pidfds of children) never is.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated

import msgspec

from state.records import Part

log = logging.getLogger("state.fds")


class Held(Part, frozen=True, kw_only=True):
    """A named descriptor: its number, and the identity of its file (fstat) to know it again."""

    name: str
    number: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    device: int
    inode: int
    kind: int


class FdTable:
    """The named descriptors of this run. `inherited` are those that the previous run left us."""

    def __init__(self, inherited: Iterable[Held] = ()) -> None:
        self._held: dict[str, int] = {}
        self._inherited = {held.name: held.number for held in inherited if _is_still(held)}
        self._stored: set[str] = set()
        self._on_store: Callable[[str, int], None] = lambda name, number: None
        self._on_end: Callable[[str], None] = lambda name: None
        for number in self._inherited.values():
            os.set_inheritable(number, False)

    def observe(self, on_store: Callable[[str, int], None], on_end: Callable[[str], None]) -> None:
        """Be told of descriptors that are to outlive a crash: `on_store(name, number)` when one is held or taken, after a
        re-exec again; `on_end(name)` when it is dropped, or was inherited and nobody wants it. From any thread."""
        self._on_store, self._on_end = on_store, on_end

    def inherit(self, numbers: Mapping[str, int]) -> None:
        """A cold start found these in the store: let them be taken as if the previous run had handed them over."""
        for number in numbers.values():
            os.set_inheritable(number, False)
        self._inherited.update(numbers)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> int:
        return self._held[name]

    def hold(self, name: str, number: int, *, stored: bool = False) -> int:
        """Take over `number` under `name` until `drop(name)`, which closes it. `stored`: it is to outlive a crash."""
        if name in self._held or name in self._inherited:
            raise ValueError(f"descriptor {name!r} is already held")
        return self._keep(name, number, stored)

    def take(self, name: str, *, stored: bool = False) -> int | None:
        """Return the inherited descriptor `name`, held from now on; None when the previous run left none."""
        if name in self._inherited:
            return self._keep(name, self._inherited.pop(name), stored)
        return self._held.get(name)

    def obtain(self, name: str, create: Callable[[], int], *, stored: bool = False) -> int:
        """Return the inherited descriptor `name`, or hold what `create()` makes: a first start and an upgrade read alike."""
        taken = self.take(name, stored=stored)
        return self.hold(name, create(), stored=stored) if taken is None else taken

    def drop(self, name: str) -> None:
        """Close the descriptor and forget it. Dropping what is not held is allowed: the end may come from two sides."""
        number = self._held.pop(name, None)
        if number is not None:
            if name in self._stored:
                self._stored.discard(name)
                self._on_end(name)
            os.close(number)

    def reject(self, name: str) -> None:
        """Close an inherited descriptor that turned out to be of no use, instead of taking it."""
        number = self._inherited.pop(name, None)
        if number is not None:
            self._on_end(name)
            os.close(number)

    def names(self, prefix: str = "") -> list[str]:
        # A copy first: other threads hold and drop meanwhile.
        return sorted(name for name in list(self._held) if name.startswith(prefix))

    def inherited(self, prefix: str = "") -> list[str]:
        """Return the names of what the previous run left and nobody has taken yet."""
        return sorted(name for name in self._inherited if name.startswith(prefix))

    def close_unclaimed(self) -> list[str]:
        """Close what nobody took. Called once, when every owner is restored."""
        lost = sorted(self._inherited)
        for name in lost:
            log.warning("Closing an inherited descriptor that nobody claims name=%s", name)
            self.reject(name)
        return lost

    def snapshot(self) -> list[Held]:
        """Return all named descriptors, those not yet taken included: a refused restore passes them on. One that another
        thread drops at this moment is left out."""
        found = []
        for name, number in sorted((self._held | self._inherited).items()):
            try:
                found.append(_describe(name, number))
            except OSError:
                if number in (self._held.get(name), self._inherited.get(name)):
                    raise
        return found

    def open_for_exec(self) -> None:
        """Let exactly the named descriptors (and 0 to 2) pass an exec."""
        named = set(self._held.values()) | set(self._inherited.values())
        for number in open_numbers():
            if number > 2 and number not in named and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                # C libraries open some of theirs without close-on-exec (libsanlock does).
                log.debug("Not handing on an unnamed descriptor number=%d file=%s", number, _target(number))
                os.set_inheritable(number, False)
        for number in named:
            os.set_inheritable(number, True)

    def close_for_exec(self) -> None:
        """Undo `open_for_exec`: the exec did not happen."""
        for number in (*self._held.values(), *self._inherited.values()):
            os.set_inheritable(number, False)

    def _keep(self, name: str, number: int, stored: bool) -> int:
        self._held[name] = number
        if stored:
            self._stored.add(name)
            self._on_store(name, number)
        return number


def open_numbers() -> Iterator[int]:
    """Yield the numbers of all descriptors open now."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            fcntl.fcntl(int(entry), fcntl.F_GETFD)
        except OSError:
            continue  # the descriptor of the listing itself
        yield int(entry)


def _describe(name: str, number: int) -> Held:
    stat = os.fstat(number)
    return Held(name=name, number=number, device=stat.st_dev, inode=stat.st_ino, kind=stat.st_mode & 0o170000)


def _is_still(held: Held) -> bool:
    try:
        same = _describe(held.name, held.number) == held
    except OSError:
        same = False
    if not same:
        log.error("An inherited descriptor is not what it was name=%s number=%d", held.name, held.number)
    return same


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return "unknown"
