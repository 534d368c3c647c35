"""Clients of every kind and manner against a real daemon: stock ones, hostile ones, and ones that come in crowds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import uuid
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.client import Client
from tests.certificates import authority, certificate, trust_store
from tests.running import Running
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Running]
CALL = "<?xml version='1.0'?><methodCall><methodName>{name}</methodName><params>{params}</params></methodCall>"


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, text=True, check=False)


def answer(said: str) -> Any:
    return xmlrpc.client.loads(said)[0][0]


def test_the_stock_client_drives_it(daemon: Start) -> None:
    vdsmd = daemon()
    vm_id = str(uuid.uuid4())
    with vdsmd.proxy() as proxy:
        assert proxy.ping() == {"status": {"code": 0, "message": "Done"}}
        made: Any = proxy.create(
            {"vmId": vm_id, "vmName": "stock", "memSize": "64", "display": "vnc", "kvmEnable": "false"}
        )
        assert made["vmList"]["vmId"] == vm_id and made["vmList"]["status"] == "WaitForLaunch"
        until(lambda: proxy.list()["vmList"] == [{"vmId": vm_id, "status": "Up"}], 60)  # type: ignore[index,call-overload]
        full: Any = proxy.list(True, [vm_id])
        assert full["vmList"][0]["vmName"] == "stock"
        assert proxy.list(False, [str(uuid.uuid4())])["vmList"] == []  # type: ignore[index,call-overload]
        assert proxy.pause(vm_id)["output"] == [""]  # type: ignore[index,call-overload]
        assert proxy.getVmStats(vm_id)["statsList"][0]["status"] == "Paused"  # type: ignore[index,call-overload]
        assert proxy.cont(vm_id)["output"] == [""]  # type: ignore[index,call-overload]
        assert "ping" in proxy.system.listMethods() and "migrate" in proxy.system.listMethods()  # type: ignore[operator]
        assert proxy.destroy(vm_id)["status"]["code"] == 0  # type: ignore[index,call-overload]
        gone: Any = proxy.getVmStats(vm_id)
        assert gone["status"] == {"code": 1, "message": "Virtual machine does not exist"}
        unbuilt: Any = proxy.getDeviceList()
        assert unbuilt["status"]["code"] == 44
        with pytest.raises(xmlrpc.client.Fault, match="no verb 'noSuchVerb'"):
            proxy.noSuchVerb()
        with pytest.raises(xmlrpc.client.Fault, match="takes 1 argument, 0 given"):
            proxy.destroy()


def test_curl_drives_it_over_tcp_and_the_local_socket(daemon: Start) -> None:
    vdsmd = daemon()
    body = CALL.format(name="ping", params="")
    for where in ([vdsmd.url], ["--unix-socket", vdsmd.socket, "http://localhost/"]):
        done = curl("-H", "Content-Type: text/xml", "--data-binary", body, *where)
        assert answer(done.stdout)["status"]["code"] == 0, done.stderr


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    authority(folder, "ours")
    authority(folder, "theirs")
    for name, issuer in (("host", "ours"), ("engine", "ours"), ("stranger", "theirs")):
        certificate(folder, name, issuer)
    return folder


def test_mutual_tls_before_and_after_a_re_exec(daemon: Start, keys: Path, tmp_path: Path) -> None:
    store = trust_store(tmp_path / "pki", keys, "host", "ours")
    vdsmd = daemon(config={"vars": {"ssl": "true", "trust_store_path": store}})
    assert vdsmd.url.startswith("https://") and vdsmd.endpoints()["xmlrpc"]["ssl"] is True
    body = CALL.format(name="ping", params="")

    def ask(*identity: str) -> subprocess.CompletedProcess[str]:
        return curl("--cacert", str(keys / "ours.pem"), "--insecure", *identity, "--data-binary", body, vdsmd.url)

    def identity(name: str) -> tuple[str, ...]:
        return ("--cert", str(keys / f"{name}.pem"), "--key", str(keys / f"{name}.key"))

    for generation in (0, 1):
        assert answer(ask(*identity("engine")).stdout)["status"]["code"] == 0
        assert ask().returncode != 0 and not ask().stdout
        assert ask(*identity("stranger")).returncode != 0
        assert curl("--data-binary", body, vdsmd.url.replace("https", "http")).returncode != 0
        if not generation:
            os.kill(vdsmd.pid, signal.SIGHUP)
            until(lambda: vdsmd.generation == 1, 120)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(keys / "ours.pem")
    context.load_cert_chain(keys / "engine.pem", keys / "engine.key")
    with xmlrpc.client.ServerProxy(vdsmd.url, context=context) as proxy:
        assert proxy.ping()["status"]["code"] == 0  # type: ignore[index,call-overload]


def raw(daemon: Running, sent: bytes) -> bytes:
    """Send bytes, end our half, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as sock, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
        got = b""
        while data := sock.recv(65536):
            got += data
    return got


def post(body: str) -> bytes:
    return f"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<methodCall><methodName>&b;</methodName></methodCall>"""
STRING = "<param><value><string>{}</string></value></param>"

HOSTILE = {
    "not XML": (post("hello"), b"<fault>"),
    "cut XML": (post("<methodCall><methodName>ping"), b"<fault>"),
    "an entity bomb": (post(BOMB), b"<fault>"),
    "deep nesting": (
        post(CALL.format(name="ping", params="<param>" + "<value><array><data>" * 5000)),
        b"<fault>",
    ),
    "an int that is none": (
        post(CALL.format(name="ping", params="<param><value><int>x</int></value></param>")),
        b"<fault>",
    ),
    "an int beyond 32 bits": (
        post(CALL.format(name="setLogLevel", params="<param><value><int>99999999999</int></value></param>")),
        b"<fault>",
    ),
    "not HTTP": (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b"400"),
    "another method": (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
    "an image that is not named": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "another path": (b"POST /else HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"404"),
    "an announced giant": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
    "a 12 MB body": (post(CALL.format(name="ping", params=STRING.format("x" * 12_000_000))), b"413"),
    "a wrong type": (
        post(CALL.format(name="getVmStats", params="<param><value><int>7</int></value></param>")),
        b"<int>91</int>",
    ),
    "a machine that is none": (post(CALL.format(name="create", params=STRING.format("x"))), b"<int>91</int>"),
}


@pytest.mark.parametrize("manner", HOSTILE)
def test_hostile_requests_get_a_clear_error_and_hurt_nobody(daemon: Start, manner: str) -> None:
    vdsmd = daemon()
    sent, told = HOSTILE[manner]
    got = raw(vdsmd, sent)
    assert told in got or (manner == "a 12 MB body" and got == b"")
    assert vdsmd.must("ping")
    assert vdsmd.must("list")["vmList"] == []


def test_a_large_call_within_the_limit_is_answered(daemon: Start) -> None:
    vdsmd = daemon()
    reply = vdsmd.call("list", False, ["x" * 9_000_000])
    assert reply["status"]["code"] == 0 and reply["vmList"] == []


def test_half_a_request_and_silence_is_ended(daemon: Start) -> None:
    vdsmd = daemon(config={"vars": {"vds_responsiveness_timeout": 1}})
    with socket.create_connection(("127.0.0.1", vdsmd.port), timeout=60) as silent:
        silent.sendall(post("x" * 100)[:50])
        assert vdsmd.must("ping")
        assert b"408" in silent.recv(65536)


def test_crowds_of_idle_connections_do_not_keep_others_out(daemon: Start) -> None:
    vdsmd = daemon()
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", vdsmd.port), timeout=60)) for _ in range(500)
        ]
        assert vdsmd.must("ping")
        os.kill(vdsmd.pid, signal.SIGHUP)
        until(lambda: vdsmd.generation == 1, 120)
        assert vdsmd.must("ping")
        for sock in crowd[::50]:
            sock.close()
    assert vdsmd.must("ping")


def test_a_request_in_every_phase_survives_a_re_exec(daemon: Start) -> None:
    """Whole but unread: it is answered, by the old run or the new one. Connected and silent: it is too, or is closed before a
    byte of an answer, if it was silent for longer than a client that is about to ask."""
    vdsmd = daemon()
    body = CALL.format(name="ping", params="")
    request = post(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", vdsmd.port)
        silent, whole = (stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(2))
        os.kill(vdsmd.pid, signal.SIGHUP)
        whole.sendall(request)
        until(lambda: vdsmd.generation == 1, 120)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            silent.sendall(request)
        answered = whole_answer(whole)
        assert b"200 OK" in answered and b"Done" in answered
        late = whole_answer(silent)
        assert late == b"" or (b"200 OK" in late and b"Done" in late)


def whole_answer(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes, or has closed before it was asked."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


def test_a_client_that_keeps_its_connection_is_told_to_close(daemon: Start) -> None:
    vdsmd = daemon()
    client = Client(vdsmd.port, keep_alive=True)
    client.must("ping")
    vdsmd.reexec()
    with pytest.raises(OSError):
        client.must("ping")
    assert Client(vdsmd.port).must("ping")
