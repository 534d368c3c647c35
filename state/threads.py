"""Threads of ours: named, with every signal blocked, and joined before an exec.

Signals are per thread: one that reaches a helper thread may kill us before handlers are back after an exec, so only the
main thread ever takes them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable


def start(name: str, target: Callable[[], None]) -> threading.Thread:
    """Run `target()` in a new daemon thread. A failed start raises RuntimeError and leaves the mask as it was."""
    thread = threading.Thread(name=name, target=target, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def join(thread: threading.Thread, deadline: float) -> bool:
    """Wait until `deadline` (monotonic clock) for the thread to end. Say whether it did."""
    thread.join(max(0.0, deadline - time.monotonic()))
    return not thread.is_alive()


def others() -> list[str]:
    """Return the names of all Python threads but the main one."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
