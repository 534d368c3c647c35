"""TLS: both sides show a certificate of the same authority, or nothing is served."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.server import PATIENCE, Client, Later, Server, echo, request
from tests.certificates import authority, certificate, openssl, trust_store
from tests.until import until
from vdsmd.api import tls
from vdsmd.api.http import Limits

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    authority(folder, "ours")
    authority(folder, "theirs")
    certificate(folder, "host", "ours")
    certificate(folder, "engine", "ours")
    certificate(folder, "stranger", "theirs")
    return folder


@pytest.fixture
def store(keys: Path, tmp_path: Path) -> Path:
    """Return a trust store as on a host."""
    return trust_store(tmp_path / "pki", keys, "host", "ours")


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, echo, tls=tls.server_context(str(store))) as server:
        yield server


def connect(server: Server, keys: Path, name: str = "", *, newest: ssl.TLSVersion | None = None) -> Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(keys / "ours.pem")
    if name:
        context.load_cert_chain(keys / f"{name}.pem", keys / f"{name}.key")
    if newest:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
        context.set_ciphers("ALL:@SECLEVEL=0")
    plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    try:
        return Client(context.wrap_socket(plain))
    except OSError:
        plain.close()
        raise


@pytest.mark.parametrize("newest", [None, ssl.TLSVersion.TLSv1_2])
def test_a_client_of_our_authority(server: Server, keys: Path, newest: ssl.TLSVersion | None) -> None:
    with connect(server, keys, "engine", newest=newest) as client:
        for number in range(3):
            assert client.call("verb", number)["args"] == [number]
        assert len(client.call("verb", "x" * 3_000_000)["args"][0]) == 3_000_000
        assert client.send(request("verb", headers="Connection: close\r\n")).answer().value["name"] == "verb"
        assert client.ended()


@pytest.mark.parametrize("name", ["", "stranger"])
@pytest.mark.parametrize("newest", [None, ssl.TLSVersion.TLSv1_2])
def test_anybody_else_is_refused(
    server: Server, keys: Path, name: str, newest: ssl.TLSVersion | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rim")
    # In TLS 1.3 a client learns of it only when it asks for something.
    with pytest.raises((OSError, AssertionError)), connect(server, keys, name, newest=newest) as client:
        client.call("verb")
    until(lambda: server.ask(lambda: server.rim.connections) == 0)
    assert len([line for line in caplog.messages if "TLS handshake refused" in line]) == 1
    with connect(server, keys, "engine") as client:
        assert client.call("verb")["name"] == "verb"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_protocols_are_refused(server: Server, keys: Path) -> None:
    with pytest.raises(OSError):
        connect(server, keys, "engine", newest=ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("data", [request("verb"), b"\x16\x03\x01\x00\x05hello", b"\x00" * 1000])
def test_plain_text_is_refused(server: Server, keys: Path, data: bytes) -> None:
    with server.client() as client:
        client.send(data)
        while client.sock.recv(100):
            pass  # an alert, perhaps
    with connect(server, keys, "engine") as client:
        assert client.call("verb")["name"] == "verb"


def test_the_local_socket_stays_plain(server: Server) -> None:
    with server.local_client() as client:
        assert client.call("verb")["local"] is True


def test_silence_in_the_handshake(store: Path, tmp_path: Path) -> None:
    limits = Limits(handshake=0.2, sweep=0.05)
    with Server(tmp_path, echo, limits, tls.server_context(str(store))) as server, server.client() as client:
        assert client.send(b"\x16\x03").ended()
        until(lambda: server.ask(lambda: server.rim.connections) == 0)


def test_a_byte_at_a_time(server: Server, keys: Path) -> None:
    with connect(server, keys, "engine") as client:
        for byte in request("verb"):
            client.send(bytes([byte]))
        assert client.answer().value["name"] == "verb"


def test_a_drain_answers_and_says_farewell(store: Path, keys: Path, tmp_path: Path) -> None:
    over: list[bool] = []
    later = Later(lambda: at_work)
    with (
        Server(tmp_path, later, tls=tls.server_context(str(store))) as at_work,
        connect(at_work, keys, "engine") as client,
    ):
        client.send(request("verb"))
        until(lambda: later.asked)
        at_work.ask(lambda: at_work.rim.drain(lambda: over.append(True)))
        later.answer(0, "x" * 5_000_000)
        assert len(client.answer().value) == 5_000_000
        assert client.ended()  # with TLS's own farewell: anything else raises
        until(lambda: over)


@pytest.mark.parametrize("name", [tls.KEY, tls.CERTIFICATE, tls.AUTHORITY])
def test_a_missing_file_is_named(store: Path, name: str) -> None:
    (store / name).unlink()
    with pytest.raises(OSError, match=f"{store}/{name}"):
        tls.server_context(str(store))


@pytest.mark.parametrize("name", [tls.KEY, tls.CERTIFICATE, tls.AUTHORITY])
@pytest.mark.parametrize("content", ["", "nonsense"])
def test_an_unusable_file_is_named(store: Path, name: str, content: str) -> None:
    (store / name).write_text(content)
    with pytest.raises(OSError, match=f"{store}/{name}"):
        tls.server_context(str(store))


def test_a_key_that_is_not_the_certificates(store: Path, keys: Path) -> None:
    (store / tls.KEY).write_bytes((keys / "engine.key").read_bytes())
    with pytest.raises(OSError, match="not a certificate with its key"):
        tls.server_context(str(store))


def test_a_key_under_a_password_is_refused_and_nobody_is_asked(store: Path, keys: Path) -> None:
    openssl("ec", "-in", keys / "host.key", "-aes128", "-passout", "pass:secret", "-out", store / tls.KEY)
    with pytest.raises(OSError, match="vdsmkey"):
        tls.server_context(str(store))
