"""The rehearsal: the code now on disk tries the hand-off on the real state, while the old run still serves.

This is the side of the old run, which has it done by a child and waits for the verdict; `vdsmd.rehearse` is the child's.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

from state.children import ChildTable, Exit
from vdsmd.loop import Loop, Timer

CHILD = "reexec/rehearsal"
FLAG = "--rehearse"

_NUMBERS = itertools.count()

Verdict = Callable[[str | None], None]
"""Called with the reason of a refusal, or None when all is well."""


class Rehearsal:
    """One rehearsal, run as a child with the document at `path`."""

    def __init__(self, loop: Loop, children: ChildTable, *, timeout: float, verdict: Verdict) -> None:
        self._loop = loop
        self._children = children
        self._timeout = timeout
        self._verdict = verdict
        self._output = -1
        self._name = ""
        self._timer: Timer | None = None
        self._cancelled = False

    def start(self, argv: list[str], env: dict[str, str], path: str) -> None:
        """Raises OSError when the new interpreter does not start."""
        self._output = os.memfd_create("rehearsal")
        # A bytecode cache written by the rehearsal is one that the pause need not write.
        env = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
        files = {1: self._output, 2: self._output}
        # Of its own: one that was cancelled may not have ended yet.
        self._name = f"{CHILD}/{next(_NUMBERS)}"
        try:
            self._children.spawn(self._name, [*argv, FLAG, path], env=env, files=files, on_exit=self._ended)
        except OSError:
            os.close(self._output)
            raise
        self._timer = self._loop.call_later(self._timeout, self._too_long)

    def cancel(self) -> None:
        """End the rehearsal; there will be no verdict."""
        self._cancelled = True
        self._children.signal(self._name, signal.SIGKILL)

    def _too_long(self) -> None:
        self._verdict(f"the rehearsal did not end within {self._timeout:.0f} s")
        self.cancel()

    def _ended(self, ended: Exit) -> None:
        if self._timer is not None:
            self._timer.cancel()
        said = os.pread(self._output, 1 << 20, 0).decode("utf-8", "replace").strip()
        os.close(self._output)
        if not self._cancelled:
            last = said.rpartition("\n")[2] or "it said nothing"
            self._verdict(None if ended.code == 0 else f"the rehearsal failed (exit {ended.code}): {last}")
