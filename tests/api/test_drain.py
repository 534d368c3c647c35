"""Draining: what has been asked is answered, what has not been accepted is kept, and nothing is waited for in vain."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.api.server import PATIENCE, Later, Server, echo, request
from tests.until import until
from vdsmd.api.http import Limits

PATIENT = Limits(grace=PATIENCE)


def drained(server: Server) -> threading.Event:
    """Begin a drain; the event is set when it is over."""
    over = threading.Event()
    server.ask(lambda: server.rim.drain(over.set))
    return over


def test_nothing_in_flight(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server:
        assert drained(server).wait(PATIENCE)


def test_a_call_in_flight_is_answered_and_told_that_it_is_the_last(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client:
        client.send(request("verb"))
        until(lambda: later.asked)
        over = drained(server)
        assert server.ask(lambda: server.rim.busy) == 1
        assert not over.is_set()
        later.answer(0)
        answer = client.answer()
        assert (answer.value, answer.headers["connection"]) == ("done", "close")
        assert client.ended()
        assert over.wait(PATIENCE)
        assert server.ask(lambda: server.rim.connections) == 0


def test_pipelined_calls_are_all_owed_but_only_one_can_be_last(tmp_path: Path) -> None:
    """After `Connection: close` a client must send the rest again; HTTP has no other way to say so."""
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client:
        client.send(request("first") + request("second"))
        until(lambda: later.asked)
        over = drained(server)
        later.answer(0)
        assert client.answer().headers["connection"] == "close"
        assert over.wait(PATIENCE)
        assert [name for name, _ in later.asked] == ["first"]


def test_half_a_request_is_waited_for(tmp_path: Path) -> None:
    whole = request("verb")
    with Server(tmp_path, echo, PATIENT) as server, server.client() as client:
        client.send(whole[:50])
        until(lambda: server.ask(lambda: server.rim.busy) == 1)
        over = drained(server)
        assert client.send(whole[50:]).answer().value["name"] == "verb"
        assert over.wait(PATIENCE)


def test_half_a_request_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with Server(tmp_path, echo, Limits(grace=0.1)) as server, server.client() as client:
        client.send(request("verb")[:50])
        until(lambda: server.ask(lambda: server.rim.busy) == 1)
        assert drained(server).wait(PATIENCE)
        assert client.ended()


def test_a_call_that_has_arrived_but_was_not_seen_yet_is_answered(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        client.call("verb")
        over = threading.Event()

        def arrive_and_drain() -> None:
            client.send(request("second"))
            server.rim.drain(over.set)

        server.ask(arrive_and_drain)
        assert client.answer().value["name"] == "second"
        assert over.wait(PATIENCE)


def test_an_idle_connection_is_closed_cleanly(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        client.call("verb")
        assert drained(server).wait(PATIENCE)
        assert client.ended()


def test_a_client_that_leaves_in_the_same_moment(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        client.call("verb")
        over = threading.Event()

        def leave_and_drain() -> None:
            client.sock.close()
            server.rim.drain(over.set)

        server.ask(leave_and_drain)
        assert over.wait(PATIENCE)
        assert server.ask(lambda: server.rim.connections) == 0


def test_a_client_who_has_just_connected_is_waited_for(tmp_path: Path) -> None:
    with Server(tmp_path, echo, PATIENT) as server, server.local_client() as client:
        until(lambda: server.ask(lambda: server.rim.connections) == 1)
        over = drained(server)
        client.send(request("verb"))
        assert client.answer().value["name"] == "verb"
        assert over.wait(PATIENCE)


def test_who_is_not_accepted_is_served_after_it(tmp_path: Path) -> None:
    """A drain leaves the backlog alone: with us gone on, or with the next image, it is served."""
    with Server(tmp_path, echo) as server:
        over = drained(server)
        assert over.wait(PATIENCE)
        clients = [server.client() for _ in range(10)] + [server.local_client() for _ in range(10)]
        for client in clients[::2]:
            client.send(request("verb"))
        server.ask(server.rim.resume_accepting)
        for client in clients[1::2]:
            client.send(request("verb"))
        for client in clients:
            answer = client.answer()
            assert answer.value["name"] == "verb"
            assert answer.headers.get("connection") is None  # we stay: connections are kept again
            client.sock.close()


def test_a_drain_can_be_taken_back(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client:
        client.send(request("verb"))
        until(lambda: later.asked)
        over = drained(server)
        server.ask(server.rim.resume_accepting)
        later.answer(0)
        assert client.answer().headers.get("connection") is None
        with server.client() as other:
            other.send(request("verb"))
            until(lambda: len(later.asked) == 2)
            later.answer(1)
            assert other.answer().value == "done"
        assert not over.is_set()


def test_a_large_answer_leaves_completely(tmp_path: Path) -> None:
    text = "x" * 20_000_000
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client:
        client.send(request("verb"))
        until(lambda: later.asked)
        over = drained(server)
        later.answer(0, text)
        assert not over.is_set()
        assert client.answer().value == text
        assert over.wait(PATIENCE)


def test_winding_down(tmp_path: Path) -> None:
    """Ahead of a drain every answer is its connection's last, so that hardly one is open when it begins."""
    with Server(tmp_path, echo) as server, server.client() as client, server.client() as idle:
        idle.call("verb")
        server.ask(server.rim.wind_down)
        assert client.send(request("verb")).answer().headers["connection"] == "close"
        assert client.ended()
        with server.client() as other:
            assert other.call("verb")["name"] == "verb"
        server.ask(server.rim.resume_accepting)
        assert idle.send(request("verb")).answer().headers.get("connection") is None
