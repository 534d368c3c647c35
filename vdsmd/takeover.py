"""Taking over, and going back: between an exec and the commit, a run that fails or hangs becomes the previous release again.

It promises that the previous release gets the document, the descriptors and the environment as they were left, once: when it
fails too, that is the end of it, and the next start recovers as after a crash.

This module is imported before anything else of ours. It depends on nothing that an upgrade could have broken.
"""

from __future__ import annotations

import os
import signal
import sys

HANDOFF = "VDSMD_HANDOFF"
"""`<path of the document>:<nonce>`: we are to take over."""
BACK = "VDSMD_BACK"
"""`<directory of the previous release>:<numbers of the descriptors, with commas>`: where to go back to."""
FAILED = "VDSMD_FAILED"
"""Why the release after us could not take over: we are who it has gone back to."""
BORROWED = ("PYTHONPATH", "PYTHONSAFEPATH")
"""Variables of Python's that going back needs: modules come from the previous release, whatever the working directory."""
OWN = "VDSMD_OWN_"
"""With it in front, they keep the values that they had before."""

_LONGEST_REASON = 2000


class TooLong(Exception):
    """Taking over takes too long."""


class _State:
    handoff = ""
    back = ""
    failed = ""
    environment: dict[str, str] = {}


def begin() -> None:
    """Take what is ours out of the environment, and be ready to go back."""
    env = os.environ
    _State.handoff, _State.back, _State.failed = (env.pop(name, "") for name in (HANDOFF, BACK, FAILED))
    for name in BORROWED:
        if OWN + name in env:
            env[name] = env.pop(OWN + name)
            if not env[name]:
                del env[name]
    # What tells of descriptors that the service manager gave is true once, for the first run.
    _State.environment = {name: value for name, value in env.items() if not name.startswith("LISTEN_")}
    signal.signal(signal.SIGALRM, _alarm)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])


def handoff() -> tuple[str, str]:
    """Return path and nonce of the document that was left for us; empty on a cold start."""
    path, _, nonce = _State.handoff.rpartition(":")
    return path, nonce


def failed() -> str:
    """Return why the release after us could not take over, '' when there was none."""
    return _State.failed


def can_go_back() -> bool:
    return bool(_State.back and _State.handoff)


def commit() -> None:
    """We serve: there is no way back, and no hurry, any more."""
    _State.back = ""
    signal.setitimer(signal.ITIMER_REAL, 0)


def environment(path: str, nonce: str, kept: str, numbers: list[int]) -> dict[str, str]:
    """Return the environment of the next run: ours as it was when we began (libraries add to it), and what leads to the
    document. `kept`: our own release's copy, or '' for no way back; `numbers`: of the named descriptors."""
    env = {**_State.environment, HANDOFF: f"{path}:{nonce}"}
    if kept:
        env[BACK] = f"{kept}:{','.join(map(str, numbers))}"
    return env


def limit(seconds: float) -> None:
    """Have the run that comes be interrupted if it has not committed by then. Timers outlive an exec; until it can handle
    the signal it stays blocked. 0 takes it back."""
    if seconds:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if not seconds:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])


def go_back(error: BaseException) -> None:
    """Become the previous release again, if there is one and we have not committed. Returns when there is no way back."""
    if not can_go_back():
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    kept, _, numbers = _State.back.rpartition(":")
    reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON].replace("\0", " ")
    print(f"vdsmd: going back to the previous release: {reason}", file=sys.stderr, flush=True)
    own = {OWN + name: _State.environment.get(name, "") for name in BORROWED}
    env = {
        **_State.environment,
        **own,
        HANDOFF: _State.handoff,
        FAILED: reason,
        "PYTHONPATH": kept,
        "PYTHONSAFEPATH": "1",
    }
    _State.back = ""
    for number in filter(None, numbers.split(",")):
        try:
            os.set_inheritable(int(number), True)
        except OSError:
            continue  # we have closed it; the previous release looks at each, and does without those that are gone
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)


def _alarm(_number: int, _frame: object) -> None:
    raise TooLong("it did not serve in time")
