"""DHCP with a real client and a real server: a lease, none to be had, and clients that outlive whoever started them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from drivers.network.errors import BringUpFailed
from tests.drivers.network.namespace import LIBC, different, ip, nics, state
from tests.drivers.network.stand import Stand
from tests.drivers.network.test_networks import addresses, reboot
from tests.until import until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("udhcpc") or not shutil.which("dnsmasq"), reason="no udhcpc or no dnsmasq here"
    ),
]

CLONE_NEWNS = 0x20000
DHCP = {"nic": "em1", "bootproto": "dhcp", "defaultRoute": True}


@contextmanager
def server(base: Path) -> Iterator[None]:
    """Serve addresses on the other end of em1's cable."""
    words = f"""--no-daemon --conf-file=/dev/null --no-resolv --no-hosts --port=0 --interface=em1x --bind-interfaces
        --except-interface=lo --user=root --dhcp-authoritative --dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,1h
        --dhcp-option=3,10.77.0.1 --dhcp-leasefile={base}/leases --pid-file={base}/dnsmasq.pid"""
    process = subprocess.Popen(["dnsmasq", *words.split()], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        until(lambda: "DHCP" in process.stderr.readline(), 60, "the server to serve")  # type: ignore[union-attr]
        yield
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Path]:
    """Give a place for stands. No client outlives the test."""
    yield tmp_path
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if f"{tmp_path}/private/dhcp/".encode() in command:
            os.kill(int(entry.name), signal.SIGKILL)


def cable() -> None:
    nics("em1")
    ip("addr add 10.77.0.1/24 dev em1x")


def clients(stand: Stand) -> list[str]:
    found: list[str] = stand.root.call("dhcp.list")
    return found


def test_a_network_by_dhcp_comes_and_goes(stand: Path) -> None:
    cable()
    before = state()
    networks = Stand(stand)
    with server(stand):
        networks.setup({"net": DHCP})
        assert addresses("net")[0].startswith("10.77.0.")
        assert "default via 10.77.0.1 dev net proto dhcp" in ip("route")
        assert clients(networks) == ["net default"]
        networks.setup({"net": {**DHCP, "defaultRoute": False}})
        assert "default" not in ip("route")
        assert clients(networks) == ["net"]
        ours = addresses("net")[0].partition("/")[0]
        assert "via 10.77.0.1 " in ip(f"route get 203.0.113.9 from {ours}")
        assert networks.driver.facts({})["networks"]["net"]["gateway"] == "10.77.0.1"
        assert networks.driver.drift == []
        networks.setup({"net": {"nic": "em1", "ipaddr": "10.77.0.9", "netmask": "24"}})
        assert addresses("net") == ["10.77.0.9/24"]
        assert clients(networks) == []
        assert len(ip("rule").splitlines()) == 3
        networks.setup({"net": {"remove": True}})
    assert different(before, state()) == []


def test_without_an_answer_all_is_as_before(stand: Path) -> None:
    cable()
    before = state()
    networks = Stand(stand)
    with pytest.raises(BringUpFailed, match="no DHCP server answers"):
        networks.setup({"net": DHCP})
    assert different(before, state()) == []
    assert clients(networks) == []


def test_a_client_outlives_the_daemon_and_is_replaced_when_it_has_died(stand: Path) -> None:
    cable()
    with server(stand):
        first = Stand(stand)
        first.setup({"net": DHCP})
        had = addresses("net")
        pid = (stand / "private" / "dhcp" / "net.default.pid").read_text()
        again = Stand(stand)
        assert again.root.calls == [("dhcp.list", {})] * len(again.root.calls)
        assert (stand / "private" / "dhcp" / "net.default.pid").read_text() == pid
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: clients(again) == [], 60, "the client to be gone")
        repaired = Stand(stand)
        assert clients(repaired) == ["net default"]
        until(lambda: addresses("net") == had, 60, "the address to be there again")


def test_after_a_reboot_it_need_not_be_answered_at_once(stand: Path) -> None:
    cable()
    with server(stand):
        first = Stand(stand)
        first.setup({"net": DHCP})
        first.driver.set_safe()
        pid = int((stand / "private" / "dhcp" / "net.default.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        reboot(stand)
        until(lambda: clients(first) == [], 60, "the client to be gone")
    again = Stand(stand)
    assert clients(again) == ["net default"]
    assert addresses("net") == []
    with server(stand):
        until(lambda: addresses("net"), 120, "the address")


DHCP6 = {"nic": "em1", "dhcpv6": True, "bootproto": "none"}
with_dhcpcd = pytest.mark.skipif(not shutil.which("dhcpcd"), reason="no dhcpcd here")


@contextmanager
def server6(base: Path) -> Iterator[None]:
    """Serve IPv6 addresses and router advertisements on the other end of em1's cable."""
    words = f"""--no-daemon --conf-file=/dev/null --no-resolv --no-hosts --port=0 --interface=em1x --bind-interfaces
        --except-interface=lo --user=root --dhcp-authoritative --dhcp-range=2001:db8:5::50,2001:db8:5::5f,64,1h
        --enable-ra --dhcp-leasefile={base}/leases --pid-file={base}/dnsmasq.pid"""
    process = subprocess.Popen(["dnsmasq", *words.split()], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        until(lambda: "router advertisement" in process.stderr.readline(), 60, "the server to serve")  # type: ignore[union-attr]
        yield
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def cable6(stand: Path) -> Iterator[Path]:
    """Give a place for stands whose clients end with the test. What is in the namespace of the test is made by `wire6`."""
    yield stand
    for note in (stand / "private" / "dhcp6").glob("*.session"):
        for process in psutil.process_iter(["name"]):
            if process.info["name"] == "dhcpcd" and str(os.getsid(process.pid)) == note.read_text():
                process.kill()


def wire6() -> None:
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    nics("em1")
    ip("addr add 2001:db8:5::1/64 dev em1x")


def leased() -> bool:
    return any(each.startswith("2001:db8:5::5") and each.endswith("/128") for each in addresses("net"))


@with_dhcpcd
def test_a_network_by_dhcpv6_comes_and_goes(cable6: Path) -> None:
    wire6()
    before = state()
    networks = Stand(cable6)
    with server6(cable6):
        networks.setup({"net": DHCP6})
        assert leased() and clients(networks) == ["net 6"]
        told = networks.driver.facts({})["networks"]["net"]
        assert told["dhcpv6"] is True and told["ipv6autoconf"] is False and told["cfg"]["DHCPV6C"] == "yes"
        until(lambda: "default via fe80:" in ip("-6 route show dev net"), 60, "the route that routers advertise")
        assert len(addresses("net")) == 1, "but no address of theirs"
        networks.setup({"net": {**DHCP6, "mtu": 1400}})
        assert leased() and clients(networks) == ["net 6"]
        networks.setup({"net": {"nic": "em1", "ipv6addr": "2001:db8:5::9"}})
        assert addresses("net") == ["2001:db8:5::9/64"] and clients(networks) == []
        networks.setup({"net": {"remove": True}})
    assert different(before, state()) == []


@with_dhcpcd
def test_a_dhcpv6_client_outlives_the_daemon_and_is_replaced_when_it_has_died(cable6: Path) -> None:
    wire6()
    note = cable6 / "private" / "dhcp6" / "run" / "net-6.pid"
    with server6(cable6):
        Stand(cable6).setup({"net": DHCP6})
        pid = note.read_text()
        again = Stand(cable6)
        assert {action for action, _ in again.root.calls} == {"dhcp.list"}
        assert note.read_text() == pid
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: clients(again) == [], 60, "the client to be gone")
        assert leased(), "the kernel counts the seconds of the lease"
        repaired = Stand(cable6)
        assert clients(repaired) == ["net 6"] and leased()
        session = (cable6 / "private" / "dhcp6" / "net.session").read_text()
        repaired.setup({"net": {"nic": "em1"}})
        assert addresses("net") == []
    alive = [each for each in psutil.process_iter(["name", "status"]) if each.info["name"] == "dhcpcd"]
    assert not [each for each in alive if each.info["status"] != "zombie" and str(os.getsid(each.pid)) == session]


def mounts(pid: str) -> str:
    """Return what is mounted for a process, which may itself see but a part of it."""
    words = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "cat", "/proc/self/mountinfo"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@with_dhcpcd
def test_a_dhcpv6_client_holds_no_storage(cable6: Path) -> None:
    """What is unmounted on this host is unmounted for it, too: else a disk would be busy for as long as it runs."""
    assert LIBC.unshare(CLONE_NEWNS) == 0  # of this thread, which ends with the test
    for words in (f"--bind {cable6} {cable6}", "--make-rshared /"):
        subprocess.run(["mount", *words.split()], check=True)
    storage = cable6 / "storage"
    storage.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(storage)], check=True)
    wire6()
    networks = Stand(cable6)
    networks.root.call("dhcp6.start", link="em1", wait=False)
    pid = (cable6 / "private" / "dhcp6" / "run" / "em1-6.pid").read_text().strip()
    try:
        assert f" {storage} " in mounts(pid) and " /run/dhcpcd " in mounts(pid)
        assert " /run/dhcpcd " not in Path("/proc/thread-self/mountinfo").read_text()
        subprocess.run(["umount", str(storage)], check=True)
        assert f" {storage} " not in mounts(pid)
    finally:
        networks.root.call("dhcp6.stop", link="em1")


@with_dhcpcd
def test_without_an_answer_of_a_dhcpv6_server_all_is_as_before(cable6: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervdsm.dhcp6.ANSWERS_WITHIN", 2.0)
    wire6()
    before = state()
    networks = Stand(cable6)
    with pytest.raises(BringUpFailed, match="no DHCPv6 server answers"):
        networks.setup({"net": DHCP6})
    assert different(before, state()) == [] and clients(networks) == []
    networks.setup({"net": {"nic": "em1"}})
    networks.driver.set_safe()
