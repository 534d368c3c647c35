"""Two network namespaces with a cable between them: traffic over a network, and an engine that a change cuts off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.network.errors import ConnectionLost
from tests.drivers.network.namespace import ip, nics
from tests.drivers.network.stand import Stand
from tests.drivers.network.test_daemon import OWN_SYSFS
from tests.running import PATIENCE, Running
from tests.until import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
NETWORK = {"nic": "em1", "ipaddr": "192.0.2.10", "netmask": "24"}
CUT_OFF = {"nic": "em1", "ipaddr": "198.51.100.10", "netmask": "24"}
ENGINE = """
import json, sys, time, threading, xmlrpc.client
url, request = sys.argv[1], json.loads(sys.argv[2])
def ping():
    while True:
        try:
            xmlrpc.client.ServerProxy(url).ping()
        except OSError:
            pass
        time.sleep(0.1)
threading.Thread(target=ping, daemon=True).start()
print(json.dumps(xmlrpc.client.ServerProxy(url).setupNetworks(*request)), flush=True)
"""


class Peer:
    """Whoever is at the other end of em1's cable, in a namespace of its own, with the address 192.0.2.1."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def plug_in(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        mine = Path("/proc/thread-self/ns/net").readlink()
        theirs = Path(f"/proc/{self.process.pid}/ns/net")
        until(lambda: theirs.readlink() != mine, 60, "the other namespace")
        nics("em1")
        ip(f"link set em1x netns {self.process.pid}")
        for command in ("link set lo up", "link set em1x up", "addr add 192.0.2.1/24 dev em1x"):
            self.run("ip", *command.split())

    def command(self, *words: str) -> list[str]:
        assert self.process is not None
        return ["nsenter", "--net", "--target", str(self.process.pid), *words]

    def run(self, *words: str, check: bool = True) -> int:
        return subprocess.run(self.command(*words), check=check, capture_output=True).returncode

    def reaches(self, address: str) -> bool:
        probe = f"import socket; socket.create_connection(('{address}', 7777), 2)"
        return self.run(sys.executable, "-c", probe, check=False) == 0

    def unplug(self) -> None:
        if self.process is not None:
            self.process.communicate()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.unplug()


def test_traffic_over_a_network_recovers_when_a_change_is_taken_back(tmp_path: Path, peer: Peer) -> None:
    peer.plug_in()
    stand = Stand(tmp_path)
    stand.setup({"net": NETWORK})
    command = [sys.executable, "-m", "http.server", "7777", "--bind", "0.0.0.0", "--directory", str(tmp_path)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: peer.reaches("192.0.2.10"), PATIENCE, "traffic over the network")
        with pytest.raises(ConnectionLost):
            stand.driver.setup({"net": CUT_OFF}, {}, {"connectivityTimeout": 1})
        until(lambda: peer.reaches("192.0.2.10"), PATIENCE, "traffic again")
    finally:
        server.terminate()
        server.wait()


def test_an_engine_that_is_cut_off_is_answered_once_it_is_reached_again(
    daemon: Callable[..., Running], peer: Peer
) -> None:
    peer.plug_in()
    ip("addr add 192.0.2.10/24 dev em1")
    ip("link set em1 up")
    running = daemon(launcher=OWN_SYSFS, config={"addresses": {"management_ip": "0.0.0.0"}})

    def ask(networks: dict[str, Any], seconds: int) -> int:
        url = f"http://192.0.2.10:{running.port}/RPC2"
        request = json.dumps([networks, {}, {"connectivityTimeout": seconds}])
        done = subprocess.run(
            peer.command(sys.executable, "-c", ENGINE, url, request), check=True, capture_output=True, text=True
        )
        return int(json.loads(done.stdout)["status"]["code"])

    assert ask({"net": NETWORK}, 120) == 0  # the nic's own address moves to the bridge under the engine's connection
    assert "master net" in ip("link show em1")
    assert ask({"net": CUT_OFF}, 2) == 10
    assert "192.0.2.10" in ip("addr show net")
    assert ask({"net": {**NETWORK, "mtu": 1400}}, 120) == 0
