"""vdsmctl from the command line to its output and exit status."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ctl.conftest import Run
from tests.ctl.serving import Server, listening
from tests.until import until

PYTHON = [sys.executable, "-m", "vdsmd.ctl.main"]


def test_an_empty_reply_is_done(server: Server, run: Run) -> None:
    assert run("host", "ping") == (0, "done\n", "")


def test_structs_are_aligned_and_cannot_play_with_the_terminal(server: Server, run: Run) -> None:
    lines = run("host", "caps").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("cpuModel")] == ["A \ufffd[31mModel"]
    nics = lines.index("nics")
    assert lines[nics + 1 : nics + 3] == ["             addr  speed", "  ens1  192.0.2.5   1000"]


@pytest.mark.parametrize("words", [("--json", "host", "stats"), ("host", "stats", "--json")])
def test_json_for_programs(words: tuple[str, ...], server: Server, run: Run) -> None:
    ran = run(*words)
    told = json.loads(ran.out)["info"]
    assert (told["cpuUser"], told["ksmState"], told["diskStats"]) == ("1.00", False, {"/tmp": {"free": "1024"}})


def test_a_refusal_is_one_line_with_code_and_name(server: Server, run: Run) -> None:
    ran = run("host", "hardware")
    told = "Hardware information could not be read: this is a test"
    assert ran == (1, "", f"vdsmctl: {told} (code 57, hwInfoErr)\n")
    error = json.loads(run("--json", "host", "hardware").err)["error"]
    assert error == {"code": 57, "name": "hwInfoErr", "message": told}


def test_status(server: Server, run: Run) -> None:
    out = run("status").out
    for line in (
        "daemon            vdsmd 1.2.3, pid 4242, generation 3",
        "serving for       1 h 2 min",
        "virtual machines  1 Down, 2 Up",
        "last re-exec      none since the start",
        "vm     a machine is being started",
        "vm/a/qemu  4711",
    ):
        assert line in out
    assert json.loads(run("status", "--json").out)["named_descriptors"] == ["api/local", "api/tcp"]


def test_the_records_of_owners(server: Server, run: Run) -> None:
    assert json.loads(run("state", "show").out) == {"host": {"generation_id": "an id"}, "reexec": {"number": 0}}
    assert json.loads(run("state", "show", "host").out) == {"generation_id": "an id"}
    assert run("state", "show", "nobody") == (1, "", "vdsmctl: no owner is called nobody; there are host, reexec\n")


def test_call_takes_json_or_text(server: Server, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run("call", "setLogLevel", "99") == (
        1,
        "",
        "vdsmctl: log level 99: expected a number from 1 to 50, or a name such as DEBUG (code 91, InvalidParameter)\n",
    )
    assert "log level 'loud'" in run("call", "setLogLevel", "loud").err
    assert "takes 1 to 2 arguments, 3 given" in run("call", "setLogLevel", "1", "2", "3").err
    assert "there is no verb 'nonsense'" in run("call", "nonsense").err
    assert "cannot be sent" in run("call", "setLogLevel", "null").err
    assert "setLogLevel" in run("call", "system.listMethods").out.splitlines()


def test_parameters_become_arguments(server: Server, run: Run) -> None:
    assert run("host", "log-level", "30", "--name", "a.logger.of.a.test").status == 0
    assert "unrecognized arguments" in run("host", "log-level", "30", "extra").err


def test_verbs_needs_no_daemon(run: Run) -> None:
    out = run("verbs").out
    assert "setLogLevel" in out
    assert "host log-level" in out
    told = {each["verb"]: each for each in json.loads(run("verbs", "--json").out)}
    assert told["setLogLevel"]["parameters"] == "level [name]"


def test_help_tells_the_exit_statuses(run: Run) -> None:
    ran = run("--help")
    assert ran.status == 0
    assert "3  reexec: refused" in ran.out


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("host",), ("host", "nonsense"), ("call",), ("--timeout", "x", "status")]
)
def test_a_wrong_command_line_is_status_2(words: tuple[str, ...], run: Run) -> None:
    assert run(*words).status == 2


# When nobody answers


def test_no_daemon(run: Run, config: Path) -> None:
    ran = run("status")
    assert (ran.status, ran.out) == (1, "")
    assert f"no vdsmd answers at {config.parent}/vdsmd.sock: No such file or directory. Is it running?" in ran.err
    assert f"python -m vdsmd --config {config} --daemon" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_socket_that_nobody_listens_to(run: Run, config: Path) -> None:
    listening(str(config.parent / "vdsmd.sock")).close()
    assert "Connection refused" in run("status").err


def test_an_unusable_configuration(run: Run, config: Path) -> None:
    config.write_text("no section\n")
    ran = run("status")
    assert (ran.status, ran.out) == (2, "")
    assert str(config) in ran.err
    config.unlink()
    assert "No such file" in run("status").err


def test_a_url(server: Server, run: Run) -> None:
    assert run("--url", f"http://127.0.0.1:{server.port}", "host", "ping").out == "done\n"
    assert (
        "only for callers on the local socket" in run("--url", f"http://127.0.0.1:{server.port}", "state", "show").err
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    ran = run("--url", f"http://127.0.0.1:{free}", "status")
    assert f"no vdsmd answers at 127.0.0.1 port {free}: Connection refused" in ran.err


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_a_url_that_is_none(url: str, run: Run) -> None:
    ran = run("--url", url, "status")
    assert ran.status == 2
    assert f"--url {url}: " in ran.err


def test_tls_without_certificates(run: Run, config: Path) -> None:
    ran = run("--url", "https://127.0.0.1:1", "status")
    assert ran.status == 2
    assert f"ca={config.parent}/pki/certs/cacert.pem" in ran.err


# When something else answers, or too little of it


@pytest.fixture
def answering(config: Path) -> Iterator[Callable[[bytes], None]]:
    """Give a function that has one call answered with these bytes, and then the connection closed."""
    listener = listening(str(config.parent / "vdsmd.sock"))
    threads = []

    def serve(answer: bytes) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(answer)

    def start(answer: bytes) -> None:
        threads.append(threading.Thread(target=serve, args=[answer]))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "closed the connection before its answer was complete"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<half",
            "closed the connection before its answer was complete",
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered with 'HTTP/1.1 503 Busy'"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "answered with 'SSH-2.0"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "answered without a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "does not speak our protocol"),
        (b"x" * 70000, "its header does not end"),
    ],
)
def test_a_lost_answer_is_said_to_be_lost(
    answer: bytes, told: str, answering: Callable[[bytes], None], run: Run
) -> None:
    answering(answer)
    ran = run("host", "ping")
    assert (ran.status, ran.out) == (1, "")
    assert told in ran.err


def test_silence_ends_with_the_time_out(config: Path, run: Run) -> None:
    with listening(str(config.parent / "vdsmd.sock")):
        assert "did not answer within 0.1 s" in run("--timeout", "0.1", "host", "ping").err


# As a process


def test_whoever_has_read_enough_may_leave(server: Server, config: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*PYTHON, "--config", str(config), "verbs"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize(("no_color", "painted"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(no_color: str, painted: bool, server: Server, config: Path) -> None:
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    subprocess.run([*PYTHON, "--config", str(config), "host", "ping"], stdout=slave, env=env, check=True, timeout=120)
    os.close(slave)
    written = until(lambda: os.read(master, 1000))
    os.close(master)
    assert written.strip() == (b"\x1b[32mdone\x1b[0m" if painted else b"done")


def test_starting_imports_nothing_that_is_slow(config: Path) -> None:
    code = (
        "import sys; from vdsmd.ctl import catalogue, main; catalogue.load(); "
        "fresh = {'msgspec', 'json', 'ssl', 'xmlrpc.client', 'http.client', 'urllib.request', 'subprocess'}; "
        "print(sorted(fresh & set(sys.modules)))"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):  # the first may make the copy of the verb table
        ended = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120
        )
    assert ended.stdout == "[]\n"
