"""DHCP with a real client and a real server: a lease, none to be had, and clients that outlive whoever started them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.network.errors import BringUpFailed
from tests.drivers.network.namespace import different, ip, nics, state
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
        networks.setup({"net": {"nic": "em1", "ipaddr": "10.77.0.9", "netmask": "24"}})
        assert addresses("net") == ["10.77.0.9/24"]
        assert clients(networks) == []
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
