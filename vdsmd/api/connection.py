"""One client's connection: bytes in, calls one after the other, answers out, and an end that loses no answer.

    handshaking -> receiving -> serving -> sending -> receiving ... -> closing -> closed
                           |-> carrying -> sending (the last answer) -> closing

It promises that answers leave whole and in the order of their requests, that at most one call of a client runs at a time,
that nothing is read from a client who does not take his answers, and that an answer is never destroyed by our own close:
we end our half first and wait a while for the other.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import time
from functools import partial

from vdsmd.api.http import CONTINUE, Incoming, Refusal, Request, answer
from vdsmd.api.shared import Carrier, Shared, Stream
from vdsmd.loop import READ, WRITE

log = logging.getLogger("rim")

CHUNK = 64 * 2**10

HANDSHAKING = "handshaking"
RECEIVING = "receiving"
SERVING = "serving"
SENDING = "sending"
CARRYING = "carrying"
"""A `Carrier` has the socket, for a body that is not held in memory."""
CLOSING = "closing"
CLOSED = "closed"

_WAITS_FOR = {HANDSHAKING: READ, RECEIVING: READ, SERVING: 0, SENDING: WRITE, CLOSING: READ}


class Connection:
    """Lives in the loop's thread, from `accept` until `drop`."""

    def __init__(self, shared: Shared, stream: Stream, *, peer: str, local: bool, secure: bool) -> None:
        self.state = HANDSHAKING if secure else RECEIVING
        self.since = time.monotonic()
        """When this state's time began to run."""
        self._fresh = True
        self._shared = shared
        self._stream = stream
        self._peer = peer
        self._local = local
        self._incoming = Incoming(shared.limits, shared.new_body, carries=shared.carry is not None)
        self._request: Request | None = None
        self._carrier: Carrier | None = None
        self._out: bytes | memoryview = b""
        self._last = False
        self._advancing = False
        self._wants = READ
        shared.loop.watch(stream.fileno(), READ, self._ready)

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer, or is just asking."""
        return self.state in (SERVING, SENDING, CARRYING) or (self.state is RECEIVING and self._incoming.midway)

    @property
    def idle(self) -> bool:
        return self.state is RECEIVING and not self._incoming.midway

    def patience(self, begun: float) -> float:
        """Return until when a drain that began at `begun` must wait for this connection; the past for not at all."""
        limits = self._shared.limits
        if self.state in (SERVING, SENDING, CARRYING):
            return math.inf
        if self.state is RECEIVING and self._incoming.midway:
            return begun + limits.grace
        if self.state is HANDSHAKING or (self.state is RECEIVING and self._fresh):
            return self.since + limits.grace
        return self.since + limits.just_now if self.state is RECEIVING else -math.inf

    def pick_up(self) -> None:
        """Take what has arrived without waiting to be called for it."""
        if self.state is RECEIVING:
            self._receive()

    def finish(self) -> None:
        """End our half, and let the client end his."""
        if self.state in (CLOSING, CLOSED):
            return
        self.state = CLOSING
        self.since = time.monotonic()
        try:
            self._stream.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop()  # the client is gone already
            return
        self._watch()

    def drop(self) -> None:
        """Close at once. What is still unread is read first: closing over it would make the kernel destroy answers."""
        if self.state is CLOSED:
            return
        if self.state is CLOSING:
            self._drain_stream()
        self.state = CLOSED
        self._request = None
        if self._carrier is not None:
            self._carrier.left()
            self._carrier = None
        self._incoming.close()
        self._shared.loop.unwatch(self._stream.fileno())
        self._stream.close()
        self._shared.forget(self)

    def refuse(self, status: int, text: str) -> None:
        """Answer so, and end."""
        log.info("Refused client=%s status=%d reason=%s", self._peer, status, text)
        self.say(Refusal(status, text).encode())

    # For carriers

    @property
    def stream(self) -> Stream:
        return self._stream

    @property
    def peer(self) -> str:
        return self._peer

    def want(self, events: int) -> None:
        """Be told when the socket is ready for that; 0: only when the client has hung up."""
        self._want(events)

    def conclude(self) -> None:
        """All has been said: end."""
        self._carrier = None
        self.finish()

    def say(self, answer: bytes) -> None:
        """Say this, and end."""
        self._carrier = None
        self._transmit(answer, last=True)
        self._watch()

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        limits = self._shared.limits
        spent = now - self.since
        if self.state is RECEIVING and spent > limits.silence:
            if self._incoming.midway:
                self.refuse(408, f"the request did not arrive within {limits.silence:g} s")
            else:
                self.finish()
        elif self.state is SENDING and spent > limits.silence:
            log.info("The client does not take its answer client=%s", self._peer)
            self.drop()
        elif self.state is HANDSHAKING and spent > limits.handshake:
            log.info("TLS handshake took too long client=%s", self._peer)
            self.drop()
        elif self.state is CLOSING and spent > limits.linger:
            self.drop()
        elif self._carrier is not None:
            self._carrier.sweep(now)

    # Events

    def _ready(self, events: int) -> None:
        if self.state is RECEIVING:
            self._receive()
        elif self.state is SENDING:
            self._flush()
            self._advance()
        elif self.state is HANDSHAKING:
            self._handshake()
        elif self.state is CLOSING:
            self._discard()
        elif self._carrier is not None:
            self._carry_on(self._carrier, events)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            log.info("The client left without its answer client=%s", self._peer)
            self.drop()
        if self._shared.leaving:
            self._shared.changed()

    def _handshake(self) -> None:
        try:
            wants = self._stream.handshake()  # type: ignore[attr-defined]
        except OSError as error:
            log.info("TLS handshake refused client=%s reason=%s", self._peer, error)
            self.finish()
            return
        if wants:
            self._want(wants)
            return
        self.state = RECEIVING
        self.since = time.monotonic()
        self._receive()

    def _receive(self) -> None:
        try:
            data = self._stream.recv(CHUNK)
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        incoming = self._incoming
        was_midway = incoming.midway
        incoming.feed(data)
        if incoming.midway and not was_midway:
            self.since = time.monotonic()
        self._advance()

    def _discard(self) -> None:
        if self._drain_stream():
            self.drop()

    def _drain_stream(self) -> bool:
        """Read and forget what there is, within reason. Say whether the client has ended his half."""
        try:
            for _ in range(16):
                if not self._stream.recv(CHUNK):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    # Calls

    def _advance(self) -> None:
        """Serve what has arrived, one after the other, for as long as answers come at once."""
        if self._advancing:
            return
        self._advancing = True
        incoming = self._incoming
        while self.state is RECEIVING:
            if incoming.requests:
                self._serve(incoming.requests.popleft())
            elif incoming.refusal is not None:
                self.refuse(incoming.refusal.status, incoming.refusal.text)
            elif incoming.expects:
                incoming.expects = False
                self._transmit(CONTINUE, last=False)
            else:
                break
        self._advancing = False
        self._watch()

    def _serve(self, request: Request) -> None:
        self.state = SERVING
        self._fresh = False
        self._request = request
        request.peer = self._peer
        request.local = self._local
        try:
            if request.carried is not None:
                self._carry(request)
                return
            self._shared.serve(request, partial(self._answer, request))
        except Exception:
            # The edge: the client must get an answer whatever went wrong, and the others must not notice.
            log.exception("Serving failed client=%s", self._peer)
            if self._request is request:
                self._request = None
                self.refuse(500, "the call failed in a way that was not foreseen")

    def _carry(self, request: Request) -> None:
        assert self._shared.carry is not None
        self.state = CARRYING
        self._want(0)
        carrier = self._shared.carry(request, self)
        self._request = None
        if self.state is CARRYING:
            self._carrier = carrier

    def _carry_on(self, carrier: Carrier, events: int) -> None:
        try:
            carrier.ready(events)
        except Exception:
            # The edge: whatever went wrong, the client must see an end, and the loop must not spin.
            log.exception("Carrying failed client=%s", self._peer)
            self.drop()

    def _answer(self, request: Request, body: bytes) -> None:
        if self._request is not request:
            return  # the client has left, or has been answered
        self._request = None
        last = self._shared.leaving or not request.keep_alive
        self._transmit(answer(body, old=request.old, last=last), last=last)
        if not self._advancing:
            self._advance()
            if self._shared.leaving:
                self._shared.changed()

    def _transmit(self, data: bytes, *, last: bool) -> None:
        self.state = SENDING
        self._out = data
        self._last = last
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._stream.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop()
            return
        if sent:
            self.since = time.monotonic()
        if sent < len(self._out):
            self._out = memoryview(self._out)[sent:]
            return
        self._out = b""
        if self._last:
            self.finish()
        else:
            self.state = RECEIVING

    def _watch(self) -> None:
        wants = _WAITS_FOR.get(self.state)
        if wants is not None:
            self._want(wants)

    def _want(self, wants: int) -> None:
        if wants != self._wants:
            self._wants = wants
            self._shared.loop.change(self._stream.fileno(), wants)
