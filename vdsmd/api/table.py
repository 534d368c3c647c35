"""The verb table: what a client may ask for. A verb is declared where it is written, and nowhere else.

The decorated function *is* the registration: its parameters' names and annotations are the wire schema (types from
`vdsmd.api.wire`, imported for real and not for type checkers alone), its docstring is the help text, and its return value
is the reply without the envelope. The command line, the manual and introspection read the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

TABLE: dict[str, Verb] = {}

Reply = dict[str, Any]
"""What a verb returns: the reply's keys except `status`, values of the wire's own kinds (no None anywhere)."""


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One verb, as `verb` below declares it."""

    name: str
    run: Callable[..., Reply]
    quick: bool = False
    key: str | None = None
    gated: bool = True
    local: bool = False
    alive: bool = False
    message: str = "Done"
    cli: str = ""
    timeout: float = 60.0
    hook: str = ""
    secret: tuple[str, ...] = ()
    ahead: Callable[..., None] | None = None


def verb(
    name: str,
    *,
    quick: bool = False,
    key: str | None = None,
    gated: bool = True,
    local: bool = False,
    alive: bool = False,
    message: str = "Done",
    cli: str = "",
    timeout: float = 60.0,
    hook: str = "",
    secret: tuple[str, ...] = (),
    ahead: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    """Declare the decorated function as the verb `name`. Its first parameter is the daemon, the rest are the wire's.

    quick: answers from memory, in the loop's thread; all others run in a worker thread.
    key: the parameter (or `parameter.member` of a struct) whose value isolates calls: those with the same value run one
        after the other, and only they wait.
    gated: answers code 99 until virtual machines have been recovered.
    local: only for callers on the local Unix socket.
    alive: counts as a sign of life of the engine (touches client.log).
    message: the text of the envelope when all went well.
    cli: the words of its subcommand of vdsmctl ("vm list"); "" has it reached by `vdsmctl call` alone.
    timeout: seconds after which a call in a worker thread is answered for (code 19).
    hook: the operator's scripts at the points before_<hook> and after_<hook> run around it; those after it are given the one
        member of its reply, and may change it.
    secret: parameters of which nothing may stand in the log, beside those whose names say so themselves.
    ahead: what is done at once with the same arguments, in the loop's thread, while the call waits for others of its key.
    """

    def declare(function: Callable[..., Reply]) -> Callable[..., Reply]:
        if name in TABLE:
            raise ValueError(f"verb {name} is declared twice")
        TABLE[name] = Verb(
            name=name,
            run=function,
            quick=quick,
            key=key,
            gated=gated,
            local=local,
            alive=alive,
            message=message,
            cli=cli,
            timeout=timeout,
            hook=hook,
            secret=secret,
            ahead=ahead,
        )
        return function

    return declare
