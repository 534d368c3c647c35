"""Dispatch: one call from the client's document to the document that answers it.

    decode -> look up -> gate -> convert -> run (here, or in a worker) -> encode -> log

It promises that every call is answered exactly once whatever happens in it: with the envelope when it was a call of a
verb, with a fault when it was none; that who asked for what and how it ended is in the log; and that no secret is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol

from drivers.errors import DriverError, NotBuilt, Recovering, Unsupported
from drivers.hooks import Hooks
from supervdsm.client import ActionError
from vdsmd.api import codes, wire
from vdsmd.api.http import Request
from vdsmd.api.table import TABLE, Verb
from vdsmd.api.xmlrpc import Decoder, Malformed, Unsendable, encode_fault, encode_reply

log = logging.getLogger("api")

_SECRETS = ("passw", "secret", "sysprep", "ticket", "credential", "payload")
_SECRET = "otp"
"""A secret when it is the whole name: in a longer one, such as bootproto, these letters mean nothing."""
_VEIL = "********"
_SHOWN = 1000


class Serving(Protocol):
    """What dispatch itself needs of the daemon. Verbs are given the same object, and know more of it."""

    @property
    def recovering(self) -> str:
        """Why most verbs must wait ('' when they need not)."""
        ...

    @property
    def hooks(self) -> Hooks:
        """The operator's scripts."""
        ...


class Call:
    """One call on its way."""

    __slots__ = ("_reply", "_started", "name", "request", "verb")

    def __init__(self, name: str, request: Request, reply: Callable[[bytes], None]) -> None:
        self.name = name
        self.request = request
        self.verb: Verb | None = None
        self._reply = reply
        self._started = time.monotonic()

    def done(self, result: Any, error: Exception | None) -> None:
        """Answer with the verb's result, or for its error."""
        assert self.verb is not None
        if error is None:
            try:
                body = _success(self.verb, result)
                own = result.get("status")
                self._end(own["code"] if own else codes.OK, body, own["message"] if own else "")
                return
            except Unsendable as unsendable:
                error = unsendable
        self.fail(error)

    def answer(self, value: Any) -> None:
        """Answer with a bare value, without the envelope."""
        self._end(codes.OK, encode_reply(value))

    def fail(self, error: Exception) -> None:
        match error:
            case DriverError() | ActionError():
                self._fail(codes.code_of(error), str(error))
            case wire.UnknownVerb():
                self._fault(codes.FAULT_UNKNOWN_VERB, str(error))
            case wire.WrongArity():
                self._fault(codes.FAULT_ARITY, str(error))
            case Unsendable():
                log.error("An answer cannot be sent verb=%s reason=%s", self.name, error)
                self._fault(codes.FAULT_UNSENDABLE, str(error))
            case _:
                log.error("Unexpected failure verb=%s", self.name, exc_info=error)
                self._fail(codes.UNEXPECTED, f"unexpected failure: {type(error).__name__}: {error}")

    def begin(self, named: dict[str, Any]) -> None:
        """Log that a worker is about to carry the call."""
        if log.isEnabledFor(logging.INFO):
            client, flow = self.request.peer, self.request.flow
            secret = self.verb.secret if self.verb else ()
            log.info("call verb=%s client=%s flow=%s args=%s", self.name, client, flow, shown(named, secret))

    def _fail(self, code: int, text: str) -> None:
        self._end(code, encode_reply({"status": {"code": code, "message": text}}), text)

    def _fault(self, code: int, text: str) -> None:
        self._end(code, encode_fault(code, text), text)

    def _end(self, code: int, body: bytes, text: str = "") -> None:
        self._reply(body)
        # Answers from memory come by the thousand; only those that went wrong are worth a line.
        level = logging.DEBUG if code == codes.OK and (self.verb is None or self.verb.quick) else logging.INFO
        if log.isEnabledFor(level):
            spent = (time.monotonic() - self._started) * 1000
            client, flow = self.request.peer, self.request.flow
            told = f" message={text!r}" if text else ""
            log.log(
                level, "answer verb=%s client=%s flow=%s code=%d ms=%.1f%s", self.name, client, flow, code, spent, told
            )


class Dispatcher:
    """Serves requests with the verbs of the table. Lives in the loop's thread."""

    def __init__(
        self, daemon: Serving, submit: Callable[..., None], run_dir: str, *, table: Mapping[str, Verb] = TABLE
    ) -> None:
        """`submit` is that of `Workers`. The file whose time tells when the engine last called is `client.log`."""
        self._daemon = daemon
        self._submit = submit
        self._table = table
        self._sign_of_life = os.path.join(run_dir, "client.log")
        self._signs_lost = False
        self.last_client = ""
        """Address and port of the last client that called over the network."""

    def serve(self, request: Request, reply: Callable[[bytes], None]) -> None:
        """Answer one request through `reply`, now or later."""
        assert isinstance(request.body, Decoder)
        try:
            name, args = request.body.call()
        except Malformed as error:
            log.info("Refused client=%s reason=not an XML-RPC call: %s", request.peer, error)
            reply(encode_fault(codes.FAULT_MALFORMED, f"not an XML-RPC call: {error}"))
            return
        call = Call(name if _is_name(name) else ascii(name[:50]), request, reply)
        try:
            self._run(call, args)
        except Exception as error:
            # The edge of every call: whatever a verb raises, its client gets an answer.
            call.fail(error)

    def _run(self, call: Call, args: list[Any]) -> None:
        verb = self._table.get(call.name)
        if verb is None:
            self._run_other(call, args)
            return
        call.verb = verb
        if not call.request.local:
            self._note_client(verb, call.request.peer)
        if verb.gated:
            self._check_gate()
        named = wire.convert(verb, args)
        if verb.hook and self._daemon.hooks.around(verb.hook):
            self._run_hooked(call, verb, named)
            return
        if verb.quick:
            call.done(verb.run(self._daemon, **named), None)
            return
        call.begin(named)
        if verb.ahead is not None:
            verb.ahead(self._daemon, **named)
        work = partial(verb.run, self._daemon, **named)
        self._submit(work, call.done, key=_key(verb, named), timeout=verb.timeout)

    def _run_hooked(self, call: Call, verb: Verb, named: dict[str, Any]) -> None:
        """Carry a call that the operator's scripts have a say in: in a worker, whatever the verb needs itself."""
        from vdsmd.api import hooked  # imported by now (vdsmd.deferred); most hosts have no scripts

        call.begin(named)
        run = partial(verb.run, self._daemon, **named)
        submit = partial(self._submit, key=_key(verb, named), timeout=verb.timeout)
        hooked.carry(self._daemon.hooks, verb, run, submit, call.done)

    def _run_other(self, call: Call, args: list[Any]) -> None:
        """Answer for names that are not in the table: introspection, and what the contract knows and we do not yet."""
        from vdsmd.api import contract, introspection  # imported by now (vdsmd.deferred); not for the first answer

        if call.name in introspection.ANSWERS:
            call.answer(introspection.answer(call.name, args))
            return
        facts = contract.verbs().get(call.name)
        if facts is None:
            raise wire.UnknownVerb(call.name)
        if not facts.takes(len(args)):
            raise wire.WrongArity(call.name, *facts.arity, len(args))
        if not facts.storage:
            self._check_gate()
        raise NotBuilt(verb=call.name)

    def _check_gate(self) -> None:
        reason = self._daemon.recovering
        if reason:
            raise Recovering(reason=reason)

    def _note_client(self, verb: Verb, peer: str) -> None:
        """Refuse what is not for the network, and note who called: an operator on this host is no engine."""
        if verb.local:
            raise Unsupported(what=verb.name, reason="it is only for callers on the local socket")
        self.last_client = peer
        if verb.alive:
            self._give_sign_of_life()

    def _give_sign_of_life(self) -> None:
        try:
            os.utime(self._sign_of_life)
        except FileNotFoundError:
            self._make_sign_of_life()
        except OSError as error:
            self._lose_sign_of_life(error)

    def _make_sign_of_life(self) -> None:
        try:
            os.close(os.open(self._sign_of_life, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            self._lose_sign_of_life(error)

    def _lose_sign_of_life(self, error: OSError) -> None:
        if not self._signs_lost:
            self._signs_lost = True
            log.error("The engine's calls cannot be noted file=%s error=%s", self._sign_of_life, error)


_EMPTY: dict[str, bytes] = {}
"""The documents of answers that say nothing but that all went well, by their message."""


def _success(verb: Verb, result: dict[str, Any]) -> bytes:
    if result:
        return encode_reply({"status": {"code": codes.OK, "message": verb.message}, **result})
    body = _EMPTY.get(verb.message)
    if body is None:
        body = _EMPTY[verb.message] = encode_reply({"status": {"code": codes.OK, "message": verb.message}})
    return body


def _is_name(name: str) -> bool:
    """Return whether it can be a verb's name, and so can be logged as it is."""
    return len(name) <= 100 and name.isascii() and name.replace(".", "_").isidentifier()


def _key(verb: Verb, named: dict[str, Any]) -> str | None:
    """Return what isolates this call from others: an id, which callers may write in either case."""
    if verb.key is None:
        return None
    value: Any = named
    for step in verb.key.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value.lower() if isinstance(value, str) else None


def shown(named: dict[str, Any], secret: tuple[str, ...] = ()) -> str:
    """Return arguments for the log: without secrets (those named `secret` are), and not endless."""
    veiled = {name: _VEIL if name in secret and value else _veil(name, value) for name, value in named.items()}
    text = " ".join(f"{name}={value!r}" for name, value in veiled.items())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _veil(name: str, value: Any) -> Any:
    lowered = name.lower()
    if lowered == _SECRET or any(secret in lowered for secret in _SECRETS):
        return _VEIL
    if isinstance(value, dict):
        return {_cut(member, 100): _veil(member, inner) for member, inner in islice(value.items(), 100)}
    if isinstance(value, list):
        return [_veil("", inner) for inner in islice(value, 100)]
    return _cut(value, 200) if isinstance(value, (str, bytes)) else value


def _cut(value: Any, length: int) -> Any:
    if len(value) <= length:
        return value
    return value[:length] + ("..." if isinstance(value, str) else b"...")
