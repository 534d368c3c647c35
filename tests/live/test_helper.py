"""The daemon as an ordinary user, and the helper beside it: whichever of the two ends, hangs or is replaced, guests go on."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, Options, Running, Stage, parent_of
from tests.until import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start what is root's"),
]

USER = "vdsm"
Start = Callable[..., Running]


def guest(daemon: Running) -> tuple[str, int]:
    """Start a guest; return its id and its QEMU's pid."""
    vm_id = str(uuid.uuid4())
    machine = {
        "vmId": vm_id,
        "vmName": vm_id[:8],
        "memSize": 16,
        "kvmEnable": False,
        "launchPaused": True,
        "devices": [],
    }
    daemon.must("create", machine)
    until(lambda: stats(daemon, vm_id)["status"] == "Paused", PATIENCE, "the guest to be there")
    return vm_id, int(stats(daemon, vm_id)["pid"])


def stats(daemon: Running, vm_id: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.must("getVmStats", vm_id)["statsList"][0]
    return found


def shown_as_before(daemon: Running, vm_id: str, qemu: int) -> bool:
    try:
        seen = stats(daemon, vm_id)
    except (OSError, AssertionError):
        return False  # it does not serve yet, or not this yet
    return (seen["status"], int(seen["pid"])) == ("Paused", qemu) and runs(qemu)


def runs(pid: int) -> bool:
    return parent_of(pid) != 0 and status_of(pid)["State"][0] not in "ZX"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def is_ordinary(pid: int) -> bool:
    """Say whether the process is the user's in every respect, and has no way to become more."""
    told = status_of(pid)
    user = pwd.getpwnam(USER)
    powers = [told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    return (
        set(told["Uid"].split()) == {str(user.pw_uid)}
        and not any(int(power, 16) for power in powers)
        and told["NoNewPrivs"] == "1"
    )


def can_be_traced(pid: int) -> bool:
    """Say whether another process of the same user may look into this one."""
    look = ["setpriv", "--reuid", USER, "--regid", "kvm", "--clear-groups", "readlink", f"/proc/{pid}/exe"]
    return subprocess.run(look, capture_output=True, check=False).returncode == 0


def helper(daemon: Running) -> dict[str, Any]:
    """Have the daemon call the helper."""
    return daemon.must("vdsmd.helper")


def helper_works(daemon: Running) -> bool:
    try:
        return bool(daemon.call("vdsmd.helper").get("answer") == "pong")
    except OSError:
        return False


# The helper as the daemon's parent


def test_nobody_but_the_helper_has_any_power(daemon: Start) -> None:
    vdsmd = daemon(uri="embed", spawned=True)
    vm_id, qemu = guest(vdsmd)
    pid = vdsmd.pid
    assert is_ordinary(pid) and is_ordinary(qemu)
    assert not can_be_traced(pid)
    assert helper(vdsmd)["way"] == "this daemon's parent"
    for _ in range(2):
        vdsmd.reexec()
        assert vdsmd.pid == pid and is_ordinary(pid) and helper_works(vdsmd)
    assert shown_as_before(vdsmd, vm_id, qemu)
    owners = {
        path.owner() for place in (vdsmd.run_dir, vdsmd.lib_dir, vdsmd.log_dir) for path in (place, *place.iterdir())
    }
    assert owners <= {USER, "root"}
    vdsmd.must("destroy", vm_id)


def test_a_killed_daemon_is_started_again_and_finds_its_guests(daemon: Start) -> None:
    vdsmd = daemon(uri="embed", spawned=True)
    vm_id, qemu = guest(vdsmd)
    before = vdsmd.pid
    os.kill(before, signal.SIGKILL)
    until(lambda: vdsmd.pid != before and shown_as_before(vdsmd, vm_id, qemu), PATIENCE, "the daemon to be back")
    assert helper_works(vdsmd)
    # Whatever libvirt has just forked looks like the daemon until its own exec.
    until(lambda: daemons(vdsmd) == [vdsmd.pid], PATIENCE, "one daemon")


def daemons(vdsmd: Running) -> list[int]:
    """Return the pids of all daemons of this configuration."""
    mark = f"-m\0vdsmd\0--config\0{vdsmd.config}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_both_end_when_the_next_daemon_refuses_its_configuration(stage: Stage) -> None:
    vdsmd = stage.start(spawned=True)
    pid = vdsmd.pid
    vdsmd.config.write_text(vdsmd.config.read_text().replace("ssl = false", "ssl = perhaps"))
    os.kill(pid, signal.SIGKILL)
    assert vdsmd.process.wait(PATIENCE) != 0
    assert not daemons(vdsmd)
    assert "ssl = perhaps" in vdsmd.log()


def test_with_its_parent_the_daemon_ends_and_both_are_back(stage: Stage) -> None:
    vdsmd = stage.start(uri="embed", spawned=True)
    vm_id, qemu = guest(vdsmd)
    pid = vdsmd.pid
    vdsmd.process.kill()
    vdsmd.process.wait()
    until(lambda: not parent_of(pid), PATIENCE, "the daemon to end")
    assert "the daemon ends too" in vdsmd.log() and "INFO lifecycle Stopped" in vdsmd.log()
    assert runs(qemu)
    again = stage.start(uri="embed", spawned=True, again=vdsmd)
    until(lambda: shown_as_before(again, vm_id, qemu), PATIENCE, "the guest to be found")
    assert helper_works(again)


def test_a_re_exec_waits_for_a_call_to_the_helper(daemon: Start) -> None:
    vdsmd = daemon(spawned=True)
    answers: list[dict[str, Any]] = []
    os.kill(vdsmd.process.pid, signal.SIGSTOP)
    try:
        call = threading.Thread(target=lambda: answers.append(vdsmd.call("vdsmd.helper")))
        call.start()
        until(lambda: "call verb=vdsmd.helper" in vdsmd.log(), PATIENCE, "the call to be on its way")
        generation = vdsmd.generation
        os.kill(vdsmd.pid, signal.SIGHUP)
        until(lambda: pending(vdsmd), PATIENCE, "the re-exec to wait")
        assert vdsmd.generation == generation and not answers
    finally:
        os.kill(vdsmd.process.pid, signal.SIGCONT)
    call.join(PATIENCE)
    assert answers[0]["answer"] == "pong"
    until(lambda: vdsmd.generation == generation + 1, PATIENCE, "the re-exec")
    assert helper_works(vdsmd)


def pending(vdsmd: Running) -> bool:
    outcome = vdsmd.must("vdsmd.status")["info"]["reexec"]
    return outcome["state"] == "pending" and "calls are running" in outcome["waits_for"]


def test_both_are_replaced_in_turn_under_load(daemon: Start) -> None:
    vdsmd = daemon(uri="embed", spawned=True)
    vm_id, qemu = guest(vdsmd)
    pid, parent = vdsmd.pid, vdsmd.process.pid
    with load(vdsmd) as failed:
        for number in range(1, 6):
            os.kill(parent, signal.SIGHUP)
            vdsmd.reexec()
            until(lambda n=number: replaced(vdsmd) >= n, PATIENCE, "the helper to be replaced")  # type: ignore[misc]
    assert failed == [] and (vdsmd.pid, vdsmd.process.pid) == (pid, parent)
    assert shown_as_before(vdsmd, vm_id, qemu)


def replaced(vdsmd: Running) -> int:
    return vdsmd.log().count("Replaced; going on")


@contextlib.contextmanager
def load(vdsmd: Running) -> Iterator[list[str]]:
    """Call the helper through the daemon all the time, and tell what failed. Calls that met a pause come on new connections."""
    failed: list[str] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            reply = vdsmd.call("vdsmd.helper")
            if reply.get("answer") != "pong":
                failed.append(str(reply))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


# A helper that is stuck: stopped, which stands for one that hangs in the kernel

STUCK = {"supervdsm": {"watchdog": 6}}
"""Seconds after which it is ended. Long enough for one that is merely slow on a busy machine."""


def fails(vdsmd: Running) -> dict[str, Any]:
    """Call the helper; return how that went wrong."""
    reply = vdsmd.call("vdsmd.helper")
    assert reply["status"]["code"] != 0 and "supervdsm" in reply["status"]["message"], reply
    return reply


def test_a_stuck_parent_is_ended_and_both_are_back(stage: Stage) -> None:
    vdsmd = stage.start(spawned=True, config=STUCK)
    assert helper_works(vdsmd)
    pid = vdsmd.pid
    vdsmd.process.send_signal(signal.SIGSTOP)
    fails(vdsmd)
    assert vdsmd.process.wait(PATIENCE) == -signal.SIGKILL
    until(lambda: not parent_of(pid), PATIENCE, "the daemon to end")
    assert "INFO lifecycle Stopped" in vdsmd.log()
    assert helper_works(stage.start(spawned=True, again=vdsmd))


def test_a_stuck_child_is_replaced(daemon: Start) -> None:
    vdsmd = daemon(config=STUCK)
    assert helper_works(vdsmd)
    (child,) = vdsmd.must("vdsmd.status")["info"]["children"]
    os.kill(int(child["pid"]), signal.SIGSTOP)
    fails(vdsmd)
    until(lambda: helper_works(vdsmd), PATIENCE, "another helper")
    (another,) = vdsmd.must("vdsmd.status")["info"]["children"]
    assert another["pid"] != child["pid"] and not runs(int(child["pid"]))


# The helper as a service beside the daemon


class Service:
    """A helper as a service of its own, for the daemons of a stage."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.output = config.parent / "helper-output"
        self.start()

    def start(self) -> None:
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", "supervdsm", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def service(stage: Stage) -> Iterator[Callable[[Running], Service]]:
    made: list[Service] = []

    def start(vdsmd: Running) -> Service:
        made.append(Service(vdsmd.config))
        until(lambda: (vdsmd.run_dir / "svdsm.sock").exists(), PATIENCE, "the helper to serve")
        return made[-1]

    yield start
    for one in made:
        one.end(signal.SIGTERM)


AS_USER = ("setpriv", "--reuid", USER, "--regid", "kvm", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
           "--no-new-privs", "env", "-u", "HOME", "-u", "XDG_RUNTIME_DIR")  # fmt: skip


def as_user(stage: Stage, uri: str = "test:///default", config: Options | None = None) -> Running:
    """Start a daemon as an ordinary user, as a service manager does."""
    base = stage.base / str(len(stage.daemons))
    base.mkdir()
    os.chown(base, pwd.getpwnam(USER).pw_uid, -1)
    launcher = (*AS_USER, f"HOME={base}/home", f"XDG_RUNTIME_DIR={base}/run")
    vdsmd = Running(base, stage.options(base, uri, config or {}), {}, launcher)
    stage.daemons.append(vdsmd)
    return vdsmd.serving()


def test_without_a_helper_what_needs_root_says_so(stage: Stage) -> None:
    vdsmd = as_user(stage)
    reply = vdsmd.call("vdsmd.helper")
    assert reply["status"]["code"] == 75 and "supervdsm" in reply["status"]["message"]
    assert vdsmd.must("vdsmd.status")["info"]["helper"] == "none"
    assert vdsmd.must("list")["vmList"] == []


def test_a_service_is_found_whenever_it_comes_and_after_it_has_died(
    stage: Stage, service: Callable[[Running], Service]
) -> None:
    vdsmd = as_user(stage, uri="embed")
    vm_id, qemu = guest(vdsmd)
    supervdsmd = service(vdsmd)
    until(lambda: helper_works(vdsmd), PATIENCE, "the daemon to find the helper")
    assert str(vdsmd.run_dir / "svdsm.sock") in helper(vdsmd)["way"]
    supervdsmd.end(signal.SIGKILL)
    dead = vdsmd.call("vdsmd.helper")
    assert dead["status"]["code"] != 0 and "supervdsm" in dead["status"]["message"]
    assert shown_as_before(vdsmd, vm_id, qemu)
    supervdsmd.start()
    until(lambda: helper_works(vdsmd), PATIENCE, "the daemon to find the helper again")
    vdsmd.reexec()
    assert helper_works(vdsmd) and shown_as_before(vdsmd, vm_id, qemu)
    vdsmd.kill()
    assert supervdsmd.process.poll() is None, "the service goes on when the daemon has died"


def test_a_stuck_service_is_ended(stage: Stage, service: Callable[[Running], Service]) -> None:
    vdsmd = as_user(stage, config=STUCK)
    supervdsmd = service(vdsmd)
    until(lambda: helper_works(vdsmd), PATIENCE, "the daemon to find the helper")
    supervdsmd.process.send_signal(signal.SIGSTOP)
    fails(vdsmd)
    assert supervdsmd.process.wait(PATIENCE) == -signal.SIGKILL
    supervdsmd.start()
    until(lambda: helper_works(vdsmd), PATIENCE, "the daemon to find the helper again")


def test_another_process_of_the_same_user_is_refused(stage: Stage, service: Callable[[Running], Service]) -> None:
    vdsmd = as_user(stage)
    supervdsmd = service(vdsmd)
    until(lambda: helper_works(vdsmd), PATIENCE, "the daemon to find the helper")
    script = f"from supervdsm.client import Client; Client(path={str(vdsmd.run_dir / 'svdsm.sock')!r}).call('ping')"
    other = subprocess.run([*AS_USER, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert other.returncode != 0 and "NotAllowed" in other.stderr
    assert "is not a daemon that we work for" in supervdsmd.output.read_text() + vdsmd.log()
    assert helper_works(vdsmd)


# The helper as a child of a daemon that is root


def test_a_daemon_that_is_root_has_a_helper_of_its_own_when_it_needs_one(daemon: Start) -> None:
    vdsmd = daemon()
    assert vdsmd.must("vdsmd.status")["info"]["children"] == []
    assert helper(vdsmd)["way"] == "a child of this daemon"
    (child,) = vdsmd.must("vdsmd.status")["info"]["children"]
    vdsmd.reexec()
    assert helper_works(vdsmd)
    assert vdsmd.must("vdsmd.status")["info"]["children"] == [child], "it has outlived the re-exec"
    os.kill(int(child["pid"]), signal.SIGKILL)
    until(lambda: helper_works(vdsmd), PATIENCE, "another helper")
    (another,) = vdsmd.must("vdsmd.status")["info"]["children"]
    assert another["pid"] != child["pid"]
    vdsmd.kill()
    until(lambda: not parent_of(int(another["pid"])), PATIENCE, "the helper to end with its daemon")
