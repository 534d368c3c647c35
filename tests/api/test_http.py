"""HTTP as bytes: the same requests however they are cut, and one refusal for what cannot be served."""

from __future__ import annotations

import pytest

from vdsmd.api.http import Incoming, Limits, answer


class Text:
    """A body that keeps what it is fed."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> None:
        self.data += data


POST = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nflowid: a1 b\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"


def incoming(**limits: int | bool) -> Incoming:
    return Incoming(Limits(**limits), Text)  # type: ignore[arg-type]


def bodies(found: Incoming) -> list[bytes]:
    return [request.body.data for request in found.requests if isinstance(request.body, Text)]


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_requests_however_they_are_cut(step: int) -> None:
    found = incoming()
    data = POST + CHUNKED + b"\r\n" + POST
    for start in range(0, len(data), step):
        found.feed(data[start : start + step])
    assert bodies(found) == [b"abc", b"def", b"abc"]
    assert [request.flow for request in found.requests] == ["a1", "", "a1"]
    assert not found.midway
    assert found.refusal is None


@pytest.mark.parametrize("length", range(1, len(POST)))
def test_a_part_of_a_request_is_none(length: int) -> None:
    found = incoming()
    found.feed(POST[:length])
    assert found.midway
    assert not found.requests
    found.feed(POST[length:])
    assert bodies(found) == [b"abc"]


@pytest.mark.parametrize(
    ("head", "keep_alive", "old"),
    [
        (b"POST / HTTP/1.1\r\n", True, False),
        (b"POST / HTTP/1.1\r\nConnection: close\r\n", False, False),
        (b"POST / HTTP/1.0\r\n", False, True),
        (b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n", True, True),
    ],
)
def test_how_long_the_connection_lives(head: bytes, keep_alive: bool, old: bool) -> None:
    found = incoming()
    found.feed(head + b"Content-Length: 1\r\n\r\nx")
    (request,) = found.requests
    assert (request.keep_alive, request.old) == (keep_alive, old)
    never = incoming(keep_alive=False)
    never.feed(head + b"Content-Length: 1\r\n\r\nx")
    assert not never.requests[0].keep_alive


@pytest.mark.parametrize(
    "target", [b"/", b"/RPC2", b"/RPC2?a=b", b"http://here:54321/RPC2", b"http://here", b"http://here/"]
)
def test_where_calls_go(target: bytes) -> None:
    found = incoming()
    found.feed(b"POST " + target + b" HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
    assert bodies(found) == [b"x"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 405),
        (b"PUT /RPC2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 405),
        (b"GET /favicon.ico HTTP/1.1\r\n\r\n", 404),
        (b"POST /RPC3 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 404),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST / HTTP/1.0\r\n\r\nabc", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 0x65, 413),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 80_000, 431),
        (b"POST / HTTP/1.1\r\n" + b"X: x\r\n" * 15_000, 431),
        (b"POST /" + b"x" * 80_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (b"POST / HTTP/7.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX : y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400),
    ],
)
def test_refusals(data: bytes, status: int) -> None:
    whole, cut = incoming(body=100), incoming(body=100)
    for start in range(0, len(data), 1000):
        whole.feed(data[start : start + 1000])
    for start in range(len(data)):
        cut.feed(data[start : start + 1])
    for found in (whole, cut):
        assert found.refusal is not None
        assert found.refusal.status == status
        assert found.refusal.text
        assert not found.requests
        found.feed(POST)
        assert not found.requests


def test_what_came_before_the_refused_is_still_a_request() -> None:
    found = incoming()
    found.feed(POST + b"GET / HTTP/1.1\r\n\r\n")
    assert bodies(found) == [b"abc"]
    assert found.refusal is not None


def test_a_client_that_waits_before_the_body() -> None:
    found = incoming(body=10)
    found.feed(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
    assert found.expects
    found.feed(b"abc")
    assert not found.expects
    assert bodies(found) == [b"abc"]


def test_a_client_that_waits_with_too_large_a_body_is_refused() -> None:
    found = incoming(body=10)
    found.feed(b"POST / HTTP/1.1\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
    assert found.refusal is not None
    assert found.refusal.status == 413


def test_heads_of_many_requests_are_not_added_up() -> None:
    found = incoming(head=200)
    for _ in range(100):
        found.feed(POST[:40])
        found.feed(POST[40:] + POST[:40])
        found.feed(POST[40:])
    assert len(found.requests) == 200
    assert found.refusal is None


def test_answers() -> None:
    assert answer(b"abc", old=False, last=False).endswith(b"Content-Length: 3\r\n\r\nabc")
    assert b"Connection: close\r\n" in answer(b"", old=False, last=True)
    assert b"Connection: keep-alive\r\n" in answer(b"", old=True, last=False)
