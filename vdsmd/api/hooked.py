"""Verbs with the operator's scripts around them.

    before_<hook> -> the verb -> after_<hook> -> the answer

It promises that scripts run in workers and the verb where it always runs: one that answers from memory reads that memory in the
loop's thread. A script that fails before it is the call's error; one that fails after it leaves the answer as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from drivers.hooks import Hooks
from vdsmd.api.table import Reply, Verb

Done = Callable[[Reply | None, Exception | None], None]


def carry(hooks: Hooks, verb: Verb, run: Callable[[], Reply], submit: Callable[..., None], done: Done) -> None:
    """Have the call carried. `submit` is that of `Workers`, with this call's key and time-out. Loop's thread."""
    if not verb.quick:
        submit(lambda: _after(hooks, verb, _between(hooks, verb, run)), done)
        return

    def before_is_over(_result: None, error: Exception | None) -> None:
        if error is not None:
            done(None, error)
            return
        try:
            reply = run()
        except Exception as caught:
            # The edge of the call, as in a worker: the error belongs to whoever asked.
            done(None, caught)
            return
        submit(lambda: _after(hooks, verb, reply), done)

    submit(lambda: _before(hooks, verb), before_is_over)


def _before(hooks: Hooks, verb: Verb) -> None:
    hooks.run_json(f"before_{verb.hook}", {})


def _between(hooks: Hooks, verb: Verb, run: Callable[[], Reply]) -> Reply:
    _before(hooks, verb)
    return run()


def _after(hooks: Hooks, verb: Verb, reply: Reply) -> Reply:
    ((member, value),) = reply.items()
    return {member: hooks.run_json(f"after_{verb.hook}", value)}
