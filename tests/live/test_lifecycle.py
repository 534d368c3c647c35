"""The life of a real daemon: start, re-exec, reload, stop, and every refusal, each with a clear message and nothing lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.client import Client
from tests.running import Running, Stage
from tests.until import until

Start = Callable[..., Running]
ROOT = Path(__file__).parents[2]


def machine(vm_id: str) -> dict[str, Any]:
    return {"vmId": vm_id, "vmName": f"m-{vm_id[:8]}", "memSize": 64, "display": "vnc", "smp": 1}


def create(daemon: Running) -> str:
    """Create a machine and wait until it is up."""
    vm_id = str(uuid.uuid4())
    daemon.must("create", machine(vm_id))
    until(lambda: status_of(daemon, vm_id) == "Up", 60, "the machine to be up")
    return vm_id


def status_of(daemon: Running, vm_id: str) -> str:
    found = [vm["status"] for vm in daemon.must("list")["vmList"] if vm["vmId"] == vm_id]
    return found[0] if found else "gone"


def outcome(daemon: Running) -> dict[str, Any]:
    told: dict[str, Any] = daemon.must("vdsmd.status")["info"]["reexec"]
    return told


def refused(daemon: Running) -> str:
    """Ask for a re-exec that must be refused; return the reason. The daemon serves on, as the same run."""
    generation, number = daemon.generation, outcome(daemon)["number"]
    os.kill(daemon.pid, signal.SIGHUP)
    told = until(lambda: (o := outcome(daemon))["number"] > number and o["state"] == "refused" and o, 120, "a refusal")
    assert daemon.generation == generation
    assert f"reason={told['reason']}" in daemon.log()
    return str(told["reason"])


def test_a_first_start_says_where_it_serves(daemon: Start) -> None:
    vdsmd = daemon()
    told = vdsmd.endpoints()
    assert told["generation"] == 0 and told["xmlrpc"]["ssl"] is False and told["xmlrpc"]["host"] == "127.0.0.1"
    assert told["pid"] == vdsmd.pid and told["socket"] == f"{vdsmd.run_dir}/vdsmd.sock" and told["since"] > 1e9
    assert (vdsmd.run_dir / "vdsmd.pid").read_text() == f"{vdsmd.pid}\n"
    assert vdsmd.must("ping")["status"] == {"code": 0, "message": "Done"}


def test_everything_is_there_after_re_execs(daemon: Start) -> None:
    vdsmd = daemon()
    first = create(vdsmd)
    generation_id = vdsmd.must("getVdsStats")["info"]["generationID"]
    for generation in (1, 2, 3):
        assert vdsmd.reexec() == generation
        assert status_of(vdsmd, first) == "Up"
        second = create(vdsmd)
        assert vdsmd.call("create", machine(first))["status"]["code"] == 4
        vdsmd.must("destroy", second)
    told = outcome(vdsmd)
    assert told["state"] == "done" and told["pause_ms"] > 0
    assert {"rehearse", "settle", "drain", "exec", "import", "restore", "serve"} <= {
        step["name"] for step in told["steps"]
    }
    assert vdsmd.must("getVdsStats")["info"]["generationID"] == generation_id
    assert os.getpriority(os.PRIO_PROCESS, vdsmd.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert not list((vdsmd.run_dir / "state").glob("*.set-aside"))


def environment(pid: int) -> set[bytes]:
    """Return a process's environment, without what leads it to its hand-off."""
    found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {entry for entry in found if not entry.startswith(b"VDSMD_")}


@pytest.mark.slow
def test_re_execs_leak_nothing(daemon: Start) -> None:
    vdsmd = daemon()
    create(vdsmd)
    vdsmd.reexec()
    proc = Path(f"/proc/{vdsmd.pid}")

    def facts() -> tuple[set[str], set[bytes], bytes]:
        status = vdsmd.must("vdsmd.status")["info"]
        assert not any(status["owners"].values()) and status["libvirt"]
        return set(status["named_descriptors"]), environment(vdsmd.pid), (proc / "cmdline").read_bytes()

    def descriptors() -> int:
        facts()
        return len([link for link in (proc / "fd").iterdir() if "socket:" not in os.readlink(link)])

    before, open_before = until(facts), until(descriptors)
    for _ in range(5):
        vdsmd.reexec()
    assert until(facts) == before
    until(lambda: descriptors() <= open_before, 60, "no more descriptors than before")


def test_two_requests_at_once_become_one_or_two_re_execs(daemon: Start) -> None:
    vdsmd = daemon()
    vm_id = create(vdsmd)
    for _ in range(5):
        os.kill(vdsmd.pid, signal.SIGHUP)
    until(lambda: vdsmd.generation >= 1 and outcome(vdsmd)["state"] == "done", 120)
    assert vdsmd.generation <= 5 and status_of(vdsmd, vm_id) == "Up"


def test_a_request_can_be_cancelled_only_while_there_is_one(daemon: Start) -> None:
    vdsmd = daemon()
    local = Local(vdsmd.socket)
    assert local.call("vdsmd.cancel")["status"]["code"] != 0
    assert vdsmd.generation == 0


class Local:
    """A client on the local socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, verb: str, *arguments: Any) -> dict[str, Any]:
        from vdsmd.api.xmlrpc import decode_reply, encode_call

        body = encode_call(verb, arguments)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(self.path)
            sock.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            got = b""
            while data := sock.recv(65536):
                got += data
        reply: dict[str, Any] = decode_reply(got.partition(b"\r\n\r\n")[2])
        return reply


def test_operators_verbs_are_for_the_local_socket_only(daemon: Start) -> None:
    vdsmd = daemon()
    assert vdsmd.call("vdsmd.reexec")["status"]["code"] != 0
    assert vdsmd.generation == 0
    assert Local(vdsmd.socket).call("vdsmd.reexec")["status"]["code"] == 0
    until(lambda: vdsmd.generation == 1, 120)
    assert set(Local(vdsmd.socket).call("vdsmd.state")) >= {"status"}


def test_a_second_instance_is_refused(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon()
    other = stage.start(again=vdsmd, wait=False)
    assert other.process.wait(60) == 1
    assert f"another vdsmd (pid {vdsmd.pid}) already runs here" in other.output.read_text()
    assert vdsmd.must("ping") and vdsmd.endpoints()["pid"] == vdsmd.pid
    vdsmd.reexec()
    again = stage.start(again=vdsmd, wait=False)
    assert again.process.wait(60) == 1


def test_a_busy_port_is_refused(daemon: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        vdsmd = daemon(config={"addresses": {"management_port": port}}, wait=False)
        assert vdsmd.process.wait(60) == 1
    assert f"cannot listen on 127.0.0.1 port {port}: " in vdsmd.output.read_text()


def test_a_broken_configuration_line_is_named(daemon: Start) -> None:
    vdsmd = daemon(config={"vars": {"ssl": "perhaps"}}, wait=False)
    assert vdsmd.process.wait(60) == 2
    assert f"{vdsmd.config}, line 2: [vars] ssl = perhaps: expected true or false" in vdsmd.output.read_text()


def test_missing_certificates_are_named(daemon: Start, tmp_path: Path) -> None:
    vdsmd = daemon(config={"vars": {"ssl": "true", "trust_store_path": tmp_path}}, wait=False)
    assert vdsmd.process.wait(60) == 1
    assert str(tmp_path) in vdsmd.output.read_text()


def test_a_broken_configuration_refuses_the_re_exec_and_the_reload(daemon: Start, stage: Stage) -> None:
    vdsmd = daemon()
    good = vdsmd.config.read_text()
    vdsmd.config.write_text(good.replace("management_port = 0", "management_port = http"))
    assert "[addresses] management_port = http: expected a whole number" in refused(vdsmd)
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until(lambda: "The configuration is kept as it was" in vdsmd.log(), 60)
    vdsmd.config.write_text(good)
    assert vdsmd.reexec() == 1


def test_a_reload_keeps_clients_and_reopens_the_log(daemon: Start) -> None:
    vdsmd = daemon()
    client = Client(vdsmd.port, keep_alive=True)
    client.must("ping")
    (vdsmd.log_dir / "vdsm.log").rename(vdsmd.log_dir / "vdsm.log.1")
    vdsmd.config.write_text(vdsmd.config.read_text().replace("[vars]", "[vars]\nlog_level = DEBUG"))
    os.kill(vdsmd.pid, signal.SIGUSR1)
    until(
        lambda: (vdsmd.log_dir / "vdsm.log").exists() and "was read again" in (vdsmd.log_dir / "vdsm.log").read_text(),
        60,
    )
    client.must("ping")
    assert vdsmd.generation == 0


def test_sigterm_stops_and_nothing_points_at_it(daemon: Start) -> None:
    vdsmd = daemon()
    assert vdsmd.stop() == 0
    assert not (vdsmd.run_dir / "endpoints.json").exists() and not (vdsmd.run_dir / "vdsmd.sock").exists()


def test_it_serves_while_libvirt_cannot_be_reached(daemon: Start, tmp_path: Path) -> None:
    vdsmd = daemon(uri=f"qemu+unix:///system?socket={tmp_path}/none")
    until(lambda: vdsmd.call("ping")["status"]["code"] == 0, 60, "it to answer")
    until(lambda: f"{tmp_path}/none" in vdsmd.must("vdsmd.status")["info"]["libvirt"], 60, "it to say so")
    assert vdsmd.must("list")["vmList"] == []
    vm_id = str(uuid.uuid4())
    reply = vdsmd.call("create", machine(vm_id))
    assert reply["status"]["code"] or status_of(vdsmd, vm_id) == "WaitForLaunch"


@pytest.mark.slow
def test_in_the_background(stage: Stage) -> None:
    base = stage.base / "background"
    base.mkdir()
    config = base / "vdsm.conf"
    options = stage.options(base, "test:///default", {})
    config.write_text("".join(f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in o.items()) for s, o in options.items()))
    command = [sys.executable, "-m", "vdsmd", "--config", "vdsm.conf", "--daemon"]
    started = subprocess.run(command, cwd=base, timeout=120, check=False, capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    path = base / "run" / "endpoints.json"
    told = json.loads(until(lambda: path.read_text() if path.exists() else "", 60))
    pid = told["pid"]
    try:
        assert os.getsid(pid) != os.getsid(0) and os.readlink(f"/proc/{pid}/cwd") == "/"
        lock_file = base / "run" / "vdsmd.pid"
        assert lock_file.read_text() == f"{pid}\n"
        # The helper goes by the kernel's word on who holds the lock.
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        assert [line[4] for line in locks if line[5].endswith(f":{lock_file.stat().st_ino}")] == [str(pid)]
        os.kill(pid, signal.SIGHUP)
        until(lambda: json.loads(path.read_text())["generation"] == 1, 120)
        assert json.loads(path.read_text())["pid"] == pid
        with (base / "run" / "vdsmd.pid").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        failed = subprocess.run(command, cwd=base, timeout=120, check=False, capture_output=True, text=True)
        assert failed.returncode == 1 and f"another vdsmd (pid {pid})" in failed.stderr
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{pid}"), 120)


# The code on disk, and what is wrong with it


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Return a copy of the code, for a daemon to run from and a test to spoil."""
    for name in ("vdsmd", "state", "drivers", "supervdsm"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    return tmp_path


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + "\n" + text)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a syntax error": (lambda r: append(r / "vdsmd/loop.py", "def broken(:"), "SyntaxError"),
    "an exception at import": (lambda r: append(r / "drivers/vm/driver.py", "1 / 0"), "ZeroDivisionError"),
    "a missing file": (lambda r: (r / "vdsmd/workers.py").unlink(), "vdsmd.workers"),
    "a missing file that is imported late": (
        lambda r: (r / "drivers/vm/xml/domain.py").unlink(),
        "drivers.vm.xml.domain",
    ),
    "a missing dependency": (lambda r: append(r / "vdsmd/deferred.py", "import no_such_library"), "no_such_library"),
    "a record that does not decode": (
        lambda r: append(
            r / "vdsmd/reexec.py", "class ReexecRecord(Record):\n    number: str\nReexec.record = ReexecRecord"
        ),
        "Expected `str`, got `int` - at `owners.reexec.number`",
    ),
    "a migration that raises": (
        lambda r: append(
            r / "vdsmd/reexec.py",
            "class ReexecRecord(Record):\n    version = 2\n    migrations = {1: lambda old: old['x']}\n"
            "    number: int = 0\nReexec.record = ReexecRecord",
        ),
        "owners.reexec: migration from version 1 failed: KeyError('x')",
    ),
    "a rehearsal that dies": (
        lambda r: append(r / "vdsmd/deferred.py", "import os; os.abort()"),
        "the rehearsal failed (exit -6)",
    ),
    "a rehearsal that hangs": (
        lambda r: append(r / "vdsmd/deferred.py", "import signal; signal.pause()"),
        "the rehearsal did not end within 3 s",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", SPOILED)
def test_bad_code_on_disk_is_refused_and_nothing_is_lost(daemon: Start, release: Path, fault: str) -> None:
    spoil, told = SPOILED[fault]
    timeout = 3 if "hangs" in fault else 120
    vdsmd = daemon(env={"PYTHONPATH": str(release)}, config={"vars": {"rehearsal_timeout": timeout}})
    vm_id = create(vdsmd)
    spoil(release)
    assert told in refused(vdsmd)
    assert status_of(vdsmd, vm_id) == "Up"
    second = create(vdsmd)
    for name in ("vdsmd", "drivers"):
        subprocess.run(["cp", "-r", f"{ROOT / name}/.", str(release / name)], check=True)
    assert vdsmd.reexec() == 1
    assert {status_of(vdsmd, vm_id), status_of(vdsmd, second)} == {"Up"}


def test_new_code_on_disk_is_what_runs_after_it(daemon: Start, release: Path) -> None:
    vdsmd = daemon(env={"PYTHONPATH": str(release)})
    append(release / "state/release.py", 'VERSION = "9.9.9"')
    vdsmd.reexec()
    assert vdsmd.must("vdsmd.status")["info"]["version"] == "9.9.9"


def test_an_interpreter_that_does_not_start_is_refused(
    daemon: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new interpreter is the one at the path that we were started with, whatever lies there by now."""
    home = Path(sys.prefix)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "lib").symlink_to(home / "lib")
    (tmp_path / "pyvenv.cfg").write_text((home / "pyvenv.cfg").read_text())
    monkeypatch.setattr(sys, "executable", str(python))
    vdsmd = daemon()
    vm_id = create(vdsmd)
    for broken, told in (("no program at all", "Exec format error"), ("#!/bin/sh\nexit 77\n", "exit 77"), ("", "")):
        python.unlink()
        if broken:
            python.write_text(broken)
            python.chmod(0o755)
        assert (told or "No such file") in refused(vdsmd)
        assert status_of(vdsmd, vm_id) == "Up"
        python.unlink(missing_ok=True)
        python.symlink_to(Path("/usr/bin/python3").resolve())
    assert vdsmd.reexec() == 1
    assert status_of(vdsmd, vm_id) == "Up"
