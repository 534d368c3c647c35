"""Real guests with agents inside: what they tell is seen, what they are asked to do is done, and a re-exec breaks no line."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ROOT, Guest
from tests.live.test_guests import assert_counted, console, pid, settled, stats, ticks
from tests.running import Running
from tests.until import until

pytestmark = pytest.mark.slow

Start = Callable[..., Running]
PATIENCE = 240.0


@pytest.fixture(scope="session")
def talkative() -> Guest:
    """Return the files of the demo guest with agents inside, made once for all runs."""
    made = subprocess.run(
        [ROOT / "scripts" / "guest", "agent"], capture_output=True, text=True, timeout=280, check=False
    )
    assert made.returncode == 0, made.stderr
    return Guest(*made.stdout.split())


def boot(daemon: Running, guest: Guest, arguments: str = "", **params: Any) -> str:
    vm_id = str(uuid.uuid4())
    daemon.must(
        "create",
        {
            "vmId": vm_id,
            "memSize": 160,
            "kernel": guest.kernel,
            "initrd": guest.initramfs,
            "kernelArgs": f"console=ttyS0 quiet {arguments}",
            **params,
        },
    )
    until(lambda: ticks(daemon, vm_id), PATIENCE, "the guest to count")
    return vm_id


def tells(daemon: Running, vm_id: str, **facts: Any) -> dict[str, Any]:
    """Wait until the guest's statistics say so, and return them."""

    def told() -> dict[str, Any]:
        seen = stats(daemon, vm_id)
        assert {key: seen.get(key) for key in facts} == facts
        return seen

    return until(told, PATIENCE, f"the guest to tell {facts}")


def written(daemon: Running, vm_id: str) -> bytes:
    """Return what the daemon has written down of what the guest told."""
    return b"".join(path.read_bytes() for path in daemon.run_dir.rglob(f"guests/{vm_id}"))


@pytest.mark.timeout(900)
def test_qemus_agent_tells_of_its_guest_and_shuts_it_down(daemon: Start, talkative: Guest) -> None:
    vdsmd = daemon(uri="embed")
    vm_id = boot(vdsmd, talkative)
    seen = tells(vdsmd, vm_id, guestIPs="192.0.2.10", username="demo", guestName="demo-guest", guestCPUCount=1)
    assert seen["session"] == "UserLoggedOn" and seen["guestOs"] == "Demo Linux 1 (demo)"
    nic = next(nic for nic in seen["netIfaces"] if nic["name"] == "demo0")
    assert nic["inet"] == ["192.0.2.10"] and nic["hw"].count(":") == 5
    assert vdsmd.call("desktopLock", vm_id)["status"]["code"] == 19
    until(lambda: settled(vdsmd), PATIENCE)
    vdsmd.reexec()
    assert stats(vdsmd, vm_id)["guestIPs"] == "192.0.2.10"
    assert_counted(vdsmd, vm_id)
    vdsmd.must("shutdown", vm_id)
    down = until(lambda: (s := stats(vdsmd, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 6)
    # Not by its power button, which asks nobody inside.
    assert b"shutdown -h" in console(vdsmd, vm_id)


@pytest.mark.timeout(900)
def test_a_re_exec_in_the_middle_of_a_line_loses_nothing(daemon: Start, talkative: Guest) -> None:
    vdsmd = daemon(uri="embed")
    vm_id = boot(vdsmd, talkative, "demo.ovirt")
    tells(vdsmd, vm_id, guestName="demo-ovirt", memUsage="75", memoryStats={"mem_free": "40960"})
    vdsmd.must("sendHcCmdToDesktop", vm_id, "half")
    until(lambda: b"half a line" in console(vdsmd, vm_id), PATIENCE, "half of a line to be sent")
    before = pid(vdsmd, vm_id)
    vdsmd.reexec()
    assert stats(vdsmd, vm_id)["guestName"] == "demo-ovirt"
    vdsmd.must("sendHcCmdToDesktop", vm_id, "rest")
    tells(vdsmd, vm_id, guestFQDN="demo.example")
    vdsmd.must("desktopLock", vm_id)
    tells(vdsmd, vm_id, session="Locked")
    # After a crash what it has told is known (it does not say its name in the network again); the connection is made anew, and
    # the agent's next word is heard.
    until(lambda: written(vdsmd, vm_id).count(b"Locked"), PATIENCE, "it to be written down")
    vdsmd.kill()
    vdsmd = daemon(uri="embed", again=vdsmd)
    tells(vdsmd, vm_id, guestName="demo-ovirt", guestFQDN="demo.example", session="Locked")
    tells(vdsmd, vm_id, memUsage="75")
    assert pid(vdsmd, vm_id) == before
    vdsmd.must("shutdown", vm_id, 7, "good night")
    down = until(lambda: (s := stats(vdsmd, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 6)
    told = console(vdsmd, vm_id).decode(errors="replace").partition("asked to shut down: ")[2]
    assert '"timeout":7' in told and '"good night"' in told and '"reboot":"false"' in told
