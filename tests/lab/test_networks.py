"""A bond with a VLAN and DHCP on another host: set up from here, kept over re-execs and a reboot, and its loss told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.other import HOST, PATIENCE, PORT, boot_id, call, install_there, reboot, remove_there, ssh
from tests.until import until

pytestmark = [pytest.mark.lab(hosts=2), pytest.mark.slow, pytest.mark.timeout(900)]

TAG = 100
LINK = f"eth2.{TAG}"
"""The end of the VLAN on this host, which serves addresses there."""
OURS = "192.0.2.1"
MAC = "52:54:00:77:02:02"
"""Of eth2 there. systemd's udev gives bonds and bridges others, unless it is prevented."""
NETWORKS = {"net": {"bonding": "bond0", "vlan": TAG, "bootproto": "dhcp", "mtu": 1400}}
BONDS = {"bond0": {"nics": ["eth2", "eth3"], "options": "mode=1 miimon=100"}}
GONE = {"net": {"remove": True}}, {"bond0": {"remove": True}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Serve addresses by DHCP on the VLAN."""
    folder = tmp_path_factory.mktemp("dhcp")
    for words in (
        f"link add {LINK} link eth2 type vlan id {TAG}",
        "link set eth2 up",
        f"addr add {OURS}/24 dev {LINK}",
        f"link set {LINK} up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    words = f"""--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --port=0 --interface={LINK}
        --bind-interfaces --except-interface=lo --user=root --dhcp-authoritative
        --dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,1h --dhcp-leasefile={folder}/leases --pid-file={folder}/pid"""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["dnsmasq", *words.split()], stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["ip", "link", "del", LINK], check=False)
        subprocess.run(["ip", "link", "set", "eth2", "down"], check=False)


@pytest.fixture(scope="module")
def there() -> Iterator[None]:
    """Have vdsmd run on the other host, as an ordinary user, and start at every boot."""
    install_there("/run/vdsm")
    try:
        yield
    finally:
        remove_there()


@pytest.fixture
def network(served: None, there: None) -> Iterator[str]:
    """Set the network up, by an engine that goes on calling, and keep it; return the address that it has got."""
    until(lambda: call("ping"), PATIENCE, "vdsmd to answer")
    before = links()
    try:
        with engine():
            call("setupNetworks", NETWORKS, BONDS, {"connectivityTimeout": 60})
        call("setSafeNetworkConfig")
        yield address()
    finally:
        with engine():
            call("setupNetworks", *GONE, {"connectivityTimeout": 60})
        call("setSafeNetworkConfig")
    assert links() == before


class engine:  # noqa: N801 (used as a verb: with engine())
    """Calls, as an engine does, as long as the block lasts: its network is not lost."""

    def __enter__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        with xmlrpc.client.ServerProxy(f"http://{HOST}:{PORT}/RPC2") as proxy:
            while not self._stop.wait(0.2):
                proxy.ping()


def links() -> set[str]:
    return {link["ifname"] for link in json.loads(ssh("ip -j link"))}


def capabilities() -> dict[str, Any]:
    found: dict[str, Any] = call("getVdsCapabilities")["info"]
    return found


def address() -> str:
    """Return the address of the network, as its host shows it."""
    found: str = capabilities()["networks"]["net"]["addr"]
    assert found.startswith("192.0.2."), found
    return found


def assert_whole(expected: str) -> None:
    """Everything is there, as the daemon and as the kernel say."""
    info = capabilities()
    net = info["networks"]["net"]
    assert (net["addr"], net["iface"], net["ports"], net["mtu"]) == (expected, "net", [f"bond0.{TAG}"], "1400")
    assert sorted(info["bondings"]["bond0"]["slaves"]) == ["eth2", "eth3"]
    assert info["vlans"][f"bond0.{TAG}"]["iface"] == "bond0"
    kernel = {link["ifname"]: link for link in json.loads(ssh("ip -j -d addr"))}
    assert [kernel[name].get("master") for name in ("eth2", "eth3", f"bond0.{TAG}")] == ["bond0", "bond0", "net"]
    bond = kernel["bond0"]["linkinfo"]["info_data"]
    assert (bond["mode"], bond["miimon"]) == ("active-backup", 100)
    assert expected in [each["local"] for each in kernel["net"]["addr_info"]]
    assert {kernel[name]["address"] for name in ("eth2", "eth3", "bond0", "net")} == {MAC}, (
        "servers know it by its card"
    )
    assert "udhcpc" in ssh("ps -e -o comm")


def reached(where: str) -> bool:
    return subprocess.run(["ping", "-c1", "-W2", where], capture_output=True, check=False).returncode == 0


def events(name: str) -> list[dict[str, Any]]:
    lines = ssh("cat /var/lib/vdsm/events/*.jsonl").splitlines()
    return [event for event in map(json.loads, lines) if event["name"] == name]


def test_a_reload_drops_no_packet(network: str) -> None:
    assert_whole(network)
    ping = subprocess.Popen(["ping", "-i0.1", "-W10", network], stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: reached(network), PATIENCE, "an answer")
        for _ in range(3):
            before = generation()
            ssh("systemctl reload vdsmd")
            until(lambda before=before: generation() == before + 1, PATIENCE, "a re-exec")  # type: ignore[misc]
    finally:
        ping.send_signal(signal.SIGINT)
        told, _ = ping.communicate()
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", told)]
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", told)[0])
    Path("/var/log/lab/ping.txt").write_text(told, encoding="utf-8")
    # The last one may have been under way when ping was ended.
    assert len(answered) > 20 and answered == list(range(1, len(answered) + 1)) and sent - received <= 1
    assert_whole(network)


def generation() -> int:
    """Return how often it has been re-executed since its start."""
    found: int = json.loads(ssh("cat /run/vdsm/endpoints.json"))["generation"]
    return found


def test_all_is_back_after_a_reboot(network: str) -> None:
    drifted = len(events("network.drift"))
    before = boot_id()
    reboot("systemctl reboot")
    assert boot_id() != before
    until(lambda: capabilities()["networks"].get("net", {}).get("addr"), PATIENCE, "the lease")
    until(lambda: reached(network), PATIENCE, "an answer over the network")
    assert_whole(network)
    assert call("getVdsStats")["info"]["netConfigDirty"] == "False"
    assert len(events("network.drift")) == drifted, "what was restored is all that there should be"


def test_what_was_not_kept_is_not_restored(network: str) -> None:
    with engine():
        call("setupNetworks", {"more": {"nic": "", "bridged": True}}, {}, {"connectivityTimeout": 60})
    assert capabilities()["netConfigDirty"] == "True"
    reboot("sync; echo b >/proc/sysrq-trigger")
    until(
        lambda: capabilities()["networks"].get("net", {}).get("addr") == network, PATIENCE, "the network that was kept"
    )
    assert "more" not in capabilities()["networks"] and "more" not in links()
    assert_whole(network)


@pytest.mark.parametrize(
    ("command", "word"),
    [("ip link set eth3 nomaster", "eth3"), (f"ip link del bond0.{TAG}", f"bond0.{TAG}"), ("pkill -x udhcpc", "dhcp")],
)
def test_what_others_change_is_told_and_repaired(network: str, command: str, word: str) -> None:
    told = len(events("network.drift"))
    ssh(command)
    ssh("systemctl reload vdsmd")
    until(lambda: len(events("network.drift")) > told, PATIENCE, "the change to be told")
    assert word in events("network.drift")[-1]["fields"]["missing"]
    ssh("systemctl restart vdsmd")
    until(lambda: call("ping"), PATIENCE, "vdsmd to answer")
    until(lambda: whole(network), PATIENCE, "it to be repaired")


def whole(expected: str) -> bool:
    assert_whole(expected)
    return True
