"""The rim over real sockets: calls are answered, and nobody can take more than his share."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.server import PATIENCE, Answer, Client, Later, Server, echo, post, request
from tests.until import until
from vdsmd.api.encoding import encode_reply
from vdsmd.api.http import Limits, Request

SHORT = Limits(silence=0.2, sweep=0.05, linger=0.2)


def test_the_stock_client(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.proxy() as proxy:
        for number in range(3):
            assert proxy.verb(number, {"a": [True]}) == {
                "name": "verb",
                "args": [number, {"a": [True]}],
                "flow": "",
                "local": False,
            }


def test_the_local_socket(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.local_client() as client:
        assert client.call("verb")["local"] is True
        assert client.call("verb")["local"] is True


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "options", [[], ["--http1.0"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]]
)
def test_curl(tmp_path: Path, options: list[str]) -> None:
    body = tmp_path / "call"
    body.write_bytes(xmlrpc.client.dumps(("x" * 100_000,), "verb").encode())
    with Server(tmp_path, echo) as server:
        command = ["curl", "-sS", "--noproxy", "*", "--fail", "-H", "FlowID: f1", *options, "--data-binary", f"@{body}"]
        run = subprocess.run(
            [*command, f"http://127.0.0.1:{server.port}/"], capture_output=True, check=True, timeout=60
        )
    (value,), _ = xmlrpc.client.loads(run.stdout)
    assert (value["name"], value["flow"]) == ("verb", "f1")  # type: ignore[index,call-overload]


def test_a_connection_is_kept(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        assert [client.call("verb", number)["args"] for number in range(50)] == [[number] for number in range(50)]
        assert server.ask(lambda: server.rim.connections) == 1


def test_the_old_protocol(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server:
        with server.client() as client:
            answer = client.send(request("verb", version="1.0")).answer()
            assert answer.headers["connection"] == "close"
            assert answer.value["name"] == "verb"
            assert client.ended()
        with server.client() as client:
            for _ in range(2):
                client.send(request("verb", version="1.0", headers="Connection: keep-alive\r\n"))
                assert client.answer().headers["connection"] == "keep-alive"


def test_one_request_per_connection_when_configured_so(tmp_path: Path) -> None:
    with Server(tmp_path, echo, Limits(keep_alive=False)) as server, server.client() as client:
        assert client.send(request("verb")).answer().headers["connection"] == "close"
        assert client.ended()


def test_a_byte_at_a_time(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        for byte in request("verb", "\u00e4"):
            client.send(bytes([byte]))
        assert client.answer().value["args"] == ["\u00e4"]


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        client.send(b"".join(request("verb", number) for number in range(500)))
        assert [client.answer().value["args"] for _ in range(500)] == [[number] for number in range(500)]


def test_calls_of_one_client_run_one_after_the_other(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client, server.client() as other:
        client.send(request("first") + request("second"))
        until(lambda: len(later.asked) == 1)
        other.send(request("others"))
        until(lambda: [name for name, _ in later.asked] == ["first", "others"])
        later.answer(0, 1)
        assert client.answer().value == 1
        until(lambda: [name for name, _ in later.asked] == ["first", "others", "second"])
        later.answer(2, 2)
        later.answer(1, 3)
        assert client.answer().value == 2
        assert other.answer().value == 3


def test_a_client_that_leaves_before_his_answer_hurts_nobody(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later) as server:
        with server.client() as client:
            client.send(request("first"))
            until(lambda: later.asked)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # an abrupt end
        until(lambda: server.ask(lambda: server.rim.connections) == 0)
        later.answer(0)
        with server.client() as client:
            client.send(request("second"))
            until(lambda: len(later.asked) == 2)
            later.answer(1)
            assert client.answer().value == "done"


def test_a_client_that_has_ended_his_half_gets_his_answer(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later) as server, server.client() as client:
        client.send(request("verb"))
        client.sock.shutdown(socket.SHUT_WR)
        until(lambda: later.asked)
        later.answer(0)
        assert client.answer().value == "done"
        assert client.ended()


def test_an_answer_given_twice_is_sent_once(tmp_path: Path) -> None:
    def serve(asked: Request, reply: Callable[[bytes], None]) -> None:
        reply(encode_reply(1))
        reply(encode_reply(2))

    with Server(tmp_path, serve) as server, server.client() as client:
        assert [client.call("verb"), client.call("verb")] == [1, 1]


def test_a_failure_in_serving_is_answered(tmp_path: Path) -> None:
    def serve(asked: Request, reply: Callable[[bytes], None]) -> None:
        raise ValueError("deliberate")

    with Server(tmp_path, serve) as server:
        for _ in range(2):
            with server.client() as client:
                assert client.send(request("verb")).answer().status == 500


def test_a_failure_after_the_answer_is_not_a_second_answer(tmp_path: Path) -> None:
    def serve(asked: Request, reply: Callable[[bytes], None]) -> None:
        reply(encode_reply(1))
        raise ValueError("deliberate")

    with Server(tmp_path, serve) as server, server.client() as client:
        assert [client.call("verb"), client.call("verb")] == [1, 1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (request("verb", path="/other"), 404),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (post(b"x" * 2000), 413),
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 200_000, 431),
    ],
)
def test_refusals(tmp_path: Path, data: bytes, status: int) -> None:
    with Server(tmp_path, echo, Limits(body=1000)) as server:
        with server.client() as client:
            answer = client.send(data).answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert answer.body
            assert client.ended()
        with server.client() as client:
            assert client.call("verb")["name"] == "verb"


def test_a_large_request(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        assert len(client.call("verb", "x" * 10_000_000)["args"][0]) == 10_000_000


def test_too_large_a_request_is_told_so_though_the_client_still_sends(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/", b"x" * 30_000_000)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (413, b"the request is larger than 10485760 bytes\n")
        connection.close()


def test_a_client_that_waits_before_the_body(tmp_path: Path) -> None:
    whole = request("verb", "x", headers="Expect: 100-continue\r\n")
    head, _, body = whole.partition(b"\r\n\r\n")
    with Server(tmp_path, echo) as server, server.client() as client:
        for _ in range(2):
            client.send(head + b"\r\n\r\n")
            assert client.answer().status == 100
            assert client.send(body).answer().value["args"] == ["x"]


def test_half_a_request_and_silence(tmp_path: Path) -> None:
    with Server(tmp_path, echo, SHORT) as server:
        for length in (10, 60, len(request("verb")) - 1):
            with server.client() as client:
                client.send(request("verb")[:length])
                assert client.answer().status == 408
                assert client.ended()
        until(lambda: server.ask(lambda: server.rim.connections) == 0)


def test_a_slow_drip_does_not_keep_a_connection(tmp_path: Path) -> None:
    stop = threading.Event()

    def drip(client: Client) -> None:
        try:
            while not stop.wait(0.02):
                client.send(b"X: x\r\n")
        except OSError:
            pass

    with Server(tmp_path, echo, SHORT) as server, server.client() as client:
        client.send(b"POST / HTTP/1.1\r\n")
        dripping = threading.Thread(target=drip, args=(client,))
        dripping.start()
        try:
            assert client.answer().status == 408
        finally:
            stop.set()
            dripping.join()


def test_silence_closes_a_connection_and_a_working_one_stays(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later, SHORT) as server, server.client() as busy, server.local_client() as silent:
        busy.send(request("verb"))
        assert silent.ended()
        with server.client() as client:
            client.send(request("verb"))
            until(lambda: len(later.asked) == 2)
            later.answer(1)
            assert client.answer().value == "done"
            assert client.ended()  # kept for a while, and then closed
        later.answer(0)
        assert busy.answer().value == "done"


def test_a_slow_reader_gets_all_and_holds_up_nobody(tmp_path: Path) -> None:
    text = "x" * 20_000_000

    def serve(asked: Request, reply: Callable[[bytes], None]) -> None:
        reply(encode_reply(text))

    with Server(tmp_path, serve) as server, server.client() as slow:
        slow.send(request("verb") + request("verb"))
        with server.client() as quick:
            assert quick.call("verb") == text
        assert server.ask(lambda: server.rim.busy) == 1
        assert [slow.answer().value == text for _ in range(2)] == [True, True]


def test_a_client_that_does_not_take_his_answer_is_dropped(tmp_path: Path) -> None:
    served = threading.Event()

    def serve(asked: Request, reply: Callable[[bytes], None]) -> None:
        reply(b"x" * 20_000_000)
        served.set()

    with Server(tmp_path, serve, SHORT) as server, server.client() as client:
        client.send(request("verb"))
        assert served.wait(PATIENCE)
        until(lambda: server.ask(lambda: server.rim.connections) == 0)


def test_beyond_the_limit_the_longest_idle_makes_room(tmp_path: Path) -> None:
    with Server(tmp_path, echo, Limits(connections=3)) as server:
        clients = [server.client() for _ in range(5)]
        for client in clients:
            assert client.call("verb")["name"] == "verb"
        assert clients[0].ended()
        assert clients[1].ended()
        assert server.ask(lambda: server.rim.connections) == 3
        for client in clients[2:]:
            assert client.call("verb")["name"] == "verb"
        for client in clients:
            client.sock.close()


def test_when_all_are_busy_one_more_is_refused(tmp_path: Path) -> None:
    later = Later(lambda: server)
    with Server(tmp_path, later, Limits(connections=2)) as server, server.client() as one, server.client() as two:
        one.send(request("verb"))
        two.send(request("verb"))
        until(lambda: len(later.asked) == 2)
        with server.client() as three:
            assert three.send(request("verb")).answer().status == 503
        later.answer(0)
        later.answer(1)
        assert [one.answer().value, two.answer().value] == ["done", "done"]
        with server.client() as three:
            three.send(request("verb"))
            until(lambda: len(later.asked) == 3)
            later.answer(2)
            assert three.answer().value == "done"


def test_many_idle_connections_and_a_working_call(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server:
        idle = [server.local_client() for _ in range(100)] + [server.client() for _ in range(100)]
        with server.client() as client, server.local_client() as local:
            assert client.call("verb")["name"] == "verb"
            assert local.call("verb")["name"] == "verb"
        assert [client.call("verb", n)["args"] for n, client in enumerate(idle)] == [[n] for n in range(len(idle))]
        for client in idle:
            client.sock.close()
        until(lambda: server.ask(lambda: server.rim.connections) == 0)


def test_closing_all(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        client.call("verb")
        server.ask(server.rim.close_all)
        assert client.ended()
        assert server.ask(lambda: server.rim.connections) == 0


def test_heads_are_not_case_sensitive(tmp_path: Path) -> None:
    with Server(tmp_path, echo) as server, server.client() as client:
        answers: list[Answer] = []
        for name in ("FlowID", "flowid", "FLOWID"):
            answers.append(client.send(request("verb", headers=f"{name}: abc\r\n")).answer())
        assert [answer.value["flow"] for answer in answers] == ["abc"] * 3
