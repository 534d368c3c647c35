"""The contract every owner of surviving state signs, and what the daemon lends to a driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from state.children import ChildTable
from state.directory import StateDirectory
from state.fds import FdTable
from state.records import Record
from supervdsm.client import Without


class Owner(Protocol):
    """Whoever has a record. All calls come from the loop's thread unless said otherwise."""

    @property
    def name(self) -> str: ...

    @property
    def record(self) -> type[Record]: ...

    def snapshot(self) -> Record:
        """Return the state that must survive. Must not block: it is called while serving, and again in the pause."""

    def restore(self, record: Record) -> None:
        """Take over what the previous run left. Called at most once, before `start`. Must not block."""

    def recover(self) -> None:
        """There was no hand-off for us (cold start, crash, or our record could not be used): take what checkpoints,
        the kernel and the outside say. Called instead of `restore`. Never stops or destroys anything."""

    def start(self) -> None:
        """The daemon serves: import what the first answers did not need, start threads, look at the world.
        Called again when a re-exec is refused late: does nothing to what is already running."""

    def unsafe(self) -> str | None:
        """Say why a re-exec now would lose something, or None when it would not."""

    def settle(self) -> None:
        """A re-exec is wanted: begin nothing new that would be unsafe. `resume` takes it back."""

    def resume(self) -> None:
        """The re-exec was refused or cancelled: go on as before. May be called without a `settle` before it."""

    def quiesce(self, deadline: float) -> None:
        """Stop and join every thread of yours by `deadline` (monotonic clock), or raise `Busy` naming the thread.
        After it nothing of yours runs; `start` undoes it when the exec is refused late."""


class Still:
    """The half of an owner of which nothing runs beside the loop."""

    def start(self) -> None:
        """Nothing to begin."""

    def unsafe(self) -> str | None:
        return None

    def settle(self) -> None:
        """Nothing to finish."""

    def resume(self) -> None:
        """Nothing has been stopped."""

    def quiesce(self, deadline: float) -> None:
        """Nothing to stop."""


class Root(Protocol):
    """What root does for us: an action of `supervdsm.actions`, by its name."""

    def call(self, action: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Return the action's value; a descriptor is an int that is the caller's to close. Blocks: for worker threads.
        Raises the errors of `supervdsm.client`."""


class Poller(Protocol):
    """Who waits for descriptors: the daemon's loop. All calls come from its thread."""

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Have `callback(ready_events)` called whenever fd is ready (the numbers of epoll), or has hung up."""

    def change(self, fd: int, events: int) -> None: ...

    def unwatch(self, fd: int) -> None:
        """Forget fd. Must be called before fd is closed."""


class Unlent:
    """Stands where a poller would, for drivers that need none."""

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        raise NotImplementedError("no poller was lent")

    def change(self, fd: int, events: int) -> None:
        raise NotImplementedError("no poller was lent")

    def unwatch(self, fd: int) -> None:
        """Nothing is watched."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon lends to a driver. Nothing else of the daemon is reachable from one."""

    fds: FdTable
    children: ChildTable
    checkpoints: StateDirectory
    run_dir: str
    lib_dir: str
    log_dir: str
    submit: Callable[..., None]
    """`submit(work, done=None, *, key=None, timeout=60.0)`: run `work()` in a worker thread; works with the same key run one
    after the other; `done(result, error)` is then called in the loop's thread. `error` is NotResponding after the time-out."""
    later: Callable[[float, Callable[[], None]], Any]
    """`later(seconds, call)`: call in the loop's thread after that time; the returned timer has `cancel()`."""
    in_loop: Callable[[Callable[[], None]], None]
    """`in_loop(call)`: have the loop's thread make the call; allowed from any thread."""
    event: Callable[..., None]
    """`event(name, **fields)`: something that operators and clients may want to know of happened. Any thread."""
    poller: Poller = Unlent()
    """Waits for descriptors. Loop's thread only."""
    root: Root = Without()
    """Does what an ordinary user may not."""
