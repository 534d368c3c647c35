"""Messages that no client of ours would send: each is refused, costs nobody else anything, and does nothing."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervdsm import wire
from supervdsm.errors import MEANINGS
from tests.supervdsm.helper import PATIENCE, ROOT, Helper
from tests.until import until

pytestmark = pytest.mark.slow

SERVER = "tests.supervdsm.server"
PING = json.dumps({"action": "ping", "arguments": {}}).encode()


class Raw:
    """A service, and bare connections to it."""

    def __init__(self, one: Helper) -> None:
        self.one = one
        self._main: socket.socket | None = None

    def main(self) -> socket.socket:
        if self._main is None:
            self._main = wire.with_credentials(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._main.connect(str(self.one.path))
        return self._main

    def close(self) -> None:
        if self._main is not None:
            self._main.close()
            self._main = None

    def send(self, data: bytes, fds: list[int]) -> None:
        try:
            self.main().sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        except (BrokenPipeError, ConnectionError):
            self.close()
            self.main().sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def ask(self, data: bytes) -> Any:
        """Send a request as a client would; return the reply, None when there is none."""
        ours, theirs = wire.pair()
        with ours:
            with theirs:
                self.send(data, [theirs.fileno()])
            ours.settimeout(PATIENCE)
            answer = ours.recv(wire.MOST)
        return json.loads(answer) if answer else None


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    if os.geteuid() != 0:
        pytest.skip("only root can start the helper")
    one = Helper(service=True, module=SERVER)
    raw = Raw(one)
    try:
        yield raw
        assert one.process.poll() is None, one.log()
    finally:
        raw.close()
        one.close()


def refused(reply: Any) -> bool:
    return bool(reply["error"]["type"] in ("Invalid", "NotAllowed"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
QUICKLY = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@QUICKLY
@given(st.binary(min_size=1, max_size=300))
def test_bytes_that_mean_nothing(raw: Raw, data: bytes) -> None:
    assert refused(raw.ask(data))


@QUICKLY
@given(JSON)
def test_json_that_means_nothing(raw: Raw, value: Any) -> None:
    assert refused(raw.ask(json.dumps(value).encode()))


@QUICKLY
@given(
    st.sampled_from(["ping", "test.echo", "test.fail", "test.secret", "no"]),
    st.dictionaries(st.text(max_size=8), JSON, max_size=3),
)
def test_requests_with_any_arguments(raw: Raw, action: str, arguments: dict[str, Any]) -> None:
    reply = raw.ask(json.dumps({"action": action, "arguments": arguments}).encode())
    assert "value" in reply or reply["error"]["type"] in MEANINGS


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b'{"action":' * 6000,
        b"9" * 60_000,
        b'{"action": "ping", "arguments": {}, "more": 1}',
        b'{"action": "ping"}',
        b'{"action": ["ping"], "arguments": {}}',
        b'{"action": "ping", "arguments": []}',
        b'{"action": "test.echo", "arguments": {"value": NaN}}',
        b'{"action": "__init__", "arguments": {}}',
        PING.decode().encode("utf-16"),
        PING + b"\0",
        PING + PING,
    ],
    ids=range(12),
)
def test_requests_that_make_no_sense(raw: Raw, data: bytes) -> None:
    assert refused(raw.ask(data))
    assert raw.ask(PING) == {"value": "pong"}


@pytest.mark.parametrize("deep", ["[", '{"a":'])
def test_a_request_as_deep_as_can_be(raw: Raw, deep: str) -> None:
    shut = {"[": "]", '{"a":': "}"}[deep]
    for depth in range(950, 1010):
        value = f"{deep * depth}1{shut * depth}"
        assert refused(raw.ask(f'{{"action": "test.echo", "arguments": {{"value": {value}}}}}'.encode()))


def test_a_request_that_is_too_large(raw: Raw) -> None:
    assert refused(raw.ask(PING + b" " * wire.MOST))
    assert raw.ask(PING) == {"value": "pong"}


def test_a_replayed_request_is_a_request(raw: Raw) -> None:
    """There is nothing in a message that lends its power to whoever copies it: the sender counts, each time."""
    assert [raw.ask(PING) for _ in range(3)] == [{"value": "pong"}] * 3


def descriptors(raw: Raw) -> int:
    return len(raw.ask(b'{"action": "test.descriptors", "arguments": {}}')["value"])


@pytest.mark.parametrize("kind", ["none", "two", "three", "file", "pipe", "stream", "internet", "datagram"])
def test_a_message_without_a_channel_of_its_own(raw: Raw, kind: str) -> None:
    raw.close()
    before, refusals = descriptors(raw), raw.one.log().count("without a channel of its own")
    ours, theirs = wire.pair()
    made: list[Any] = [ours, theirs]
    fds = {"none": [], "two": [theirs.fileno()] * 2, "three": [theirs.fileno()] * 3}.get(kind)
    if fds is None:
        odd: dict[str, Callable[[], Any]] = {
            "file": lambda: open("/dev/null", "rb"),  # noqa: SIM115
            "pipe": lambda: os.fdopen(os.pipe()[0], "rb"),
            "stream": socket.socket,
            "internet": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        }
        made.append(odd[kind]())
        fds = [made[-1].fileno()]
    raw.send(PING, fds)
    until(lambda: raw.one.log().count("without a channel of its own") > refusals, PATIENCE)
    assert raw.main().recv(1) == b"", "the connection is closed"
    raw.close()
    for each in made:
        each.close()
    until(lambda: descriptors(raw) == before, PATIENCE, "all to be closed")


@contextlib.contextmanager
def unclosing(base: Path) -> Iterator[Path]:
    """Give a file that does not close while the `switch` beside its file system is there."""
    shown, switch = base / "shown", base / "switch"
    shown.mkdir()
    command = [sys.executable, "-m", "tests.supervdsm.unclosing", str(shown), str(switch)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: str(shown) in Path("/proc/self/mounts").read_text(), PATIENCE)
            switch.touch()
            yield shown / "file"
        finally:
            switch.unlink(missing_ok=True)
            subprocess.run(["umount", "-l", shown], check=False)
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no FUSE here")
def test_a_descriptor_that_does_not_close_holds_up_nobody(raw: Raw, tmp_path: Path) -> None:
    raw.close()
    with unclosing(tmp_path) as file:
        # A process of its own: we could not close it either.
        script = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as opener:
            assert opener.stdout is not None and opener.stdout.readline()
            fd = os.open(f"/proc/{opener.pid}/fd/3", os.O_RDWR)
            try:
                for _ in range(3):
                    raw.send(PING, [fd])
                    raw.main().settimeout(PATIENCE)
                    assert raw.main().recv(1) == b"", "the connection is closed"
                    raw.close()
                    assert raw.ask(PING) == {"value": "pong"}
                assert len(children(raw.one.pid)) == 3
            finally:
                (tmp_path / "switch").unlink()  # before any of us has to wait for it
                os.close(fd)
                opener.kill()
    until(lambda: not children(raw.one.pid), PATIENCE, "what closed it to be gone")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_channel_that_nobody_reads_holds_up_no_other(raw: Raw) -> None:
    ours, theirs = wire.pair()
    with ours, theirs:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(b"x" * 1000)
        raw.send(PING, [theirs.fileno()])
        assert raw.ask(PING) == {"value": "pong"}


def test_a_connection_on_which_nothing_comes_holds_up_no_other(raw: Raw) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(raw.one.path))
        assert raw.ask(PING) == {"value": "pong"}


def test_an_empty_message_ends_its_connection(raw: Raw) -> None:
    raw.send(b"", [])
    assert raw.main().recv(1) == b""
    raw.close()
    assert raw.ask(PING) == {"value": "pong"}


def test_no_log_line_is_forged(raw: Raw) -> None:
    forged = "x\n2026-01-01 00:00:00,000 INFO supervdsm.call call caller=vdsmd"
    raw.ask(json.dumps({"action": forged, "arguments": {}}).encode())
    raw.ask(json.dumps({"action": "test.echo", "arguments": {forged: forged}}).encode())
    raw.ask(json.dumps({"action": "test.fail", "arguments": {"text": forged + "\x1b[2J\u2028"}}).encode())
    raw.ask(json.dumps({"action": "test.surprise", "arguments": {"text": forged}}).encode())
    until(lambda: raw.one.log().count("\\n2026-01-01") >= 5, PATIENCE)
    assert "\n2026-01-01" not in raw.one.log() and "\x1b" not in raw.one.log() and "\u2028" not in raw.one.log()
