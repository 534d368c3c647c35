"""Guests that go from one host to the other while their daemons are replaced, killed, refused."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.libvirts import Libvirts
from tests.live.test_guests import boot, console, stats, ticks
from tests.running import Running, Stage
from tests.until import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces"),
]

PATIENCE = 240.0
NO_VM, EXISTS, MIGRATE_FAILED, NOTHING_TO_CANCEL = 1, 4, 12, 47
LIBVIRT_TLS, LIBVIRT_TCP = 16514, 16509
ESTABLISHED = "01"
"""As /proc/net/tcp has it."""
SLOWLY = 1
"""MiB a second: so that it lasts."""


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[Libvirts]:
    """Give two hosts, for all tests here."""
    stage = Stage()
    failed = request.session.testsfailed
    libvirts = None
    try:
        libvirts = Libvirts(stage)
        yield libvirts
    finally:
        if libvirts is not None:
            libvirts.clear()
        stage.clear(tell=request.session.testsfailed > failed)


@pytest.fixture
def libvirts(hosts: Libvirts) -> Iterator[Libvirts]:
    """Give two hosts without any machine or daemon."""
    try:
        yield hosts
    finally:
        for daemon in hosts.stage.daemons:
            daemon.stop()
        hosts.empty()


def status(daemon: Running, vm_id: str) -> str:
    reply = daemon.call("getVmStats", vm_id)
    return str(reply["statsList"][0]["status"]) if reply["status"]["code"] == 0 else ""


def migrate(libvirts: Libvirts, source: Running, target: Running, vm_id: str, **options: Any) -> dict[str, Any]:
    return source.call("migrate", {"vmId": vm_id, "dst": libvirts.peer(1, target), "method": "online", **options})


def begun(libvirts: Libvirts, source: Running, target: Running, vm_id: str, **options: Any) -> bool:
    return bool(migrate(libvirts, source, target, vm_id, **options)["status"]["code"] == 0)


def await_status(daemon: Running, vm_id: str, *wanted: str) -> None:
    until(lambda: status(daemon, vm_id) in wanted, PATIENCE, f"{vm_id} to be {wanted}")


def under_way(source: Running, vm_id: str) -> None:
    """It is being moved, and libvirt has told how far it is."""
    until(lambda: source.must("migrateStatus", vm_id)["progress"] > 0, PATIENCE, "the migration to be under way")
    assert status(source, vm_id) == "Migration Source"


def hurry(libvirts: Libvirts, vm_id: str) -> None:
    """What had to be seen on the way has been seen."""
    libvirts.hosts[0].virsh("migrate-setspeed", vm_id, "1000")


def arrived(source: Running, target: Running, vm_id: str) -> None:
    """It is there and not here, and its count has no gap and no double."""
    await_status(target, vm_id, "Up")
    down = until(lambda: (s := stats(source, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 4)
    until(lambda: source.must("migrateStatus", vm_id)["progress"] == 100, PATIENCE)
    until(lambda: ticks(target, vm_id), PATIENCE, "it to count there")
    counts_on(target, vm_id)
    said = console(source, vm_id) + console(target, vm_id)
    counted = [int(number) for number in re.findall(rb"tick (\d+)\r?\n", said)]
    assert all(b == a + 1 for a, b in itertools.pairwise(counted))


def counts_on(daemon: Running, vm_id: str) -> None:
    seen = ticks(daemon, vm_id)[-1]
    until(lambda: ticks(daemon, vm_id)[-1] > seen, PATIENCE, "the guest to count on")


def stays(source: Running, target: Running, vm_id: str, reason: str) -> None:
    """It runs on here, it is known why, and there is nothing of it there."""
    failed = until(lambda: (m := source.call("migrateStatus", vm_id))["status"]["code"] and m, PATIENCE)
    assert reason in failed["status"]["message"]
    await_status(source, vm_id, "Up")
    counts_on(source, vm_id)
    until(lambda: status(target, vm_id) == "", PATIENCE, "nothing to be left there")


def replaced(source: Running, target: Running, vm_id: str, times: int) -> None:
    """Both are re-executed, and go on with what they were at."""
    for _ in range(times):
        source.reexec()
        target.reexec()
        assert status(source, vm_id) == "Migration Source" and status(target, vm_id) == "Migration Destination"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_under_tls(libvirts: Libvirts, guest: Guest) -> None:
    source, target = (
        libvirts.daemon(number, {"ssl": "true", "trust_store_path": libvirts.hosts[number].trust_store})
        for number in (0, 1)
    )
    (vm_id,) = boot(source, guest)
    # What answers there is no daemon of ours.
    source.must("migrate", {"vmId": vm_id, "dst": f"{libvirts.hosts[1].address}:{LIBVIRT_TLS}"})
    stays(source, target, vm_id, str(LIBVIRT_TLS))
    assert begun(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    under_way(source, vm_id)
    spoken = {entry.split()[1].partition(":")[2] for entry in libvirts.hosts[1].run("cat", "/proc/net/tcp").splitlines()[1:]
              if entry.split()[3] == ESTABLISHED}  # fmt: skip
    assert f"{LIBVIRT_TLS:04X}" in spoken and f"{LIBVIRT_TCP:04X}" not in spoken
    hurry(libvirts, vm_id)
    arrived(source, target, vm_id)


def test_while_both_daemons_are_replaced(libvirts: Libvirts, guest: Guest) -> None:
    source, target = libvirts.daemon(0), libvirts.daemon(1)
    (vm_id,) = boot(source, guest)
    reply = migrate(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    assert reply["status"]["code"] == 0 and reply["progress"] == 0
    assert migrate(libvirts, source, target, vm_id)["status"]["code"] == EXISTS
    under_way(source, vm_id)
    await_status(target, vm_id, "Migration Destination")
    assert "migrationProgress" in stats(source, vm_id)
    replaced(source, target, vm_id, 3)
    assert source.generation == target.generation == 3
    hurry(libvirts, vm_id)
    arrived(source, target, vm_id)
    assert source.call("migrateCancel", vm_id)["status"]["code"] == NOTHING_TO_CANCEL
    source.must("destroy", vm_id)
    pid = int(stats(target, vm_id)["pid"])
    assert Path(f"/proc/{pid}/comm").read_text(encoding="ascii").startswith("qemu")
    until(lambda: not list((source.run_dir / "carried").iterdir()), PATIENCE, "no order to be left")


def test_while_both_daemons_are_killed(libvirts: Libvirts, guest: Guest) -> None:
    source, target = libvirts.daemon(0), libvirts.daemon(1)
    (vm_id,) = boot(source, guest)
    assert begun(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    under_way(source, vm_id)
    source.kill()
    target.kill()
    source, target = libvirts.daemon(0, again=source), libvirts.daemon(1, again=target)
    assert status(source, vm_id) in ("Migration Source", "Down")
    hurry(libvirts, vm_id)
    arrived(source, target, vm_id)


def test_what_fails_leaves_the_guest_where_it_was(libvirts: Libvirts, guest: Guest) -> None:
    source, target = libvirts.daemon(0), libvirts.daemon(1)
    (vm_id,) = boot(source, guest)
    # Nobody is there.
    source.must("migrate", {"vmId": vm_id, "dst": f"{libvirts.hosts[1].address}:1"})
    stays(source, target, vm_id, "no vdsmd answers")
    # There is one of that name already, which is not touched.
    target.must("create", {"vmId": vm_id, "memSize": 16, "launchPaused": True})
    await_status(target, vm_id, "Paused")
    assert begun(libvirts, source, target, vm_id)
    until(lambda: "already exists" in source.call("migrateStatus", vm_id)["status"]["message"], PATIENCE)
    await_status(source, vm_id, "Up")
    assert status(target, vm_id) == "Paused"
    target.must("destroy", vm_id)
    # Cancelled.
    assert begun(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    under_way(source, vm_id)
    source.must("migrateCancel", vm_id)
    stays(source, target, vm_id, "cancelled")
    assert source.call("migrateStatus", vm_id)["status"]["code"] == NOTHING_TO_CANCEL
    # Its QEMU there dies.
    assert begun(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    under_way(source, vm_id)
    os.kill(until(lambda: int(stats(target, vm_id)["pid"]), PATIENCE), signal.SIGKILL)
    stays(source, target, vm_id, "")
    # It comes no nearer to its end in time; the limit holds after a crash, too.
    source.stop()
    source = libvirts.daemon(0, {"migration_max_time_per_gib_mem": 6}, again=source)
    assert begun(libvirts, source, target, vm_id, maxBandwidth=SLOWLY)
    under_way(source, vm_id)
    source.kill()
    source = libvirts.daemon(0, {"migration_max_time_per_gib_mem": 6}, again=source)
    stays(source, target, vm_id, "takes longer than 6 seconds")


def test_saving_goes_on_in_libvirtd_when_the_daemon_is_killed(libvirts: Libvirts, guest: Guest) -> None:
    source = libvirts.daemon(0)
    (vm_id,) = boot(source, guest)
    memory = libvirts.stage.base / "memory"

    def carried() -> bool:
        return any("drivers.vm.travel.carrier" in command for command in libvirts.stage.processes().values())

    source.must("hibernate", vm_id, str(memory))
    # Killed before there is a carrier, the daemon finds out later that nobody has asked libvirt, and the guest stays.
    until(lambda: carried() or status(source, vm_id) == "Down", PATIENCE, "libvirt to be asked")
    source.kill()
    source = libvirts.daemon(0, again=source)
    down = until(lambda: (s := stats(source, vm_id))["status"] == "Down" and s, PATIENCE)
    assert (down["exitCode"], down["exitReason"]) == (0, 5)
    source.must("destroy", vm_id)
    source.must("create", {"vmId": vm_id, "memSize": 96, "hiberVolHandle": str(memory)})
    await_status(source, vm_id, "Up")
    counts_on(source, vm_id)


def test_an_embedded_libvirt_refuses(stage: Stage) -> None:
    vdsmd = stage.start(uri="test:///default")
    vm_id = "11111111-1111-4111-8111-111111111111"
    vdsmd.must("create", {"vmId": vm_id, "memSize": 16})
    until(lambda: stats(vdsmd, vm_id)["status"] == "Up", PATIENCE)
    refused = vdsmd.call("migrate", {"vmId": vm_id, "dst": "192.0.2.1"})["status"]
    assert refused["code"] == MIGRATE_FAILED and "inside of this daemon" in refused["message"]
    refused = vdsmd.call("migrationCreate", {"vmId": vm_id.replace("1", "2"), "memSize": 16})["status"]
    assert refused["code"] == MIGRATE_FAILED
    assert vdsmd.call("migrate", {"vmId": vm_id.replace("1", "2"), "dst": "x"})["status"]["code"] == NO_VM
    assert vdsmd.call("migrate", {"vmId": vm_id})["status"]["code"] == 11
    assert vdsmd.must("migrateStatus", vm_id)["progress"] == 0
