"""A guest and its network: set up under it, cut off and recovered, and kept over a re-exec, with every ping accounted for."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Guest
from tests.drivers.network.namespace import ip, nics
from tests.drivers.network.test_daemon import QUIET, code
from tests.drivers.network.test_reach import Peer, peer
from tests.running import Running
from tests.until import until

__all__ = ["peer"]

pytestmark = [pytest.mark.netns, pytest.mark.slow]

PATIENCE = 240.0
MAC = "52:54:00:12:34:56"
NETWORK = {"nic": "em1", "ipaddr": "192.0.2.10", "netmask": "24"}


class Pings:
    """What has become of pings to the guest, by their numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def numbers(self, word: str) -> set[int]:
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return {int(line[1]) for line in lines if len(line) == 2 and line[0] == word}

    @property
    def last_sent(self) -> int:
        return max(self.numbers("sent"), default=0)

    def answered_after(self, number: int) -> bool:
        return max(self.numbers("got"), default=0) > number

    def lost(self, first: int, last: int) -> list[int]:
        return sorted(set(range(first, last + 1)) - self.numbers("got"))


@contextmanager
def pinging(peer: Peer, path: Path) -> Iterator[Pings]:
    with path.open("w") as output:
        script = str(Path(__file__).with_name("pings.py"))
        process = subprocess.Popen(peer.command(sys.executable, script, "192.0.2.20"), stdout=output)
    try:
        yield Pings(path)
    finally:
        process.terminate()
        process.wait()


def boot(running: Running, guest: Guest) -> str:
    vm_id = str(uuid.uuid4())
    nic: dict[str, Any] = {"type": "interface", "device": "bridge", "network": "net", "nicModel": "virtio"}
    nic |= {"macAddr": MAC, "filter": "vdsm-no-mac-spoofing"}
    files = {"kernel": guest.kernel, "initrd": guest.initramfs}
    arguments = "console=ttyS0 quiet demo.ip=192.0.2.20/24"
    machine = {"vmId": vm_id, "vmName": "guest", "memSize": 96, "smp": 1, "kernelArgs": arguments, **files}
    running.must("create", {**machine, "devices": [nic]})
    log = running.log_dir / "console" / f"{vm_id}.log"
    until(lambda: b"tick 1" in (log.read_bytes() if log.exists() else b""), PATIENCE, "the guest to count")
    return vm_id


def tap() -> str:
    (found,) = (line.split()[1].rstrip(":") for line in ip("-o link show master net").splitlines() if ": vd" in line)
    return found


def test_a_guest_is_reached_over_a_network_that_comes_goes_and_comes_back(
    daemon: Callable[..., Running], peer: Peer, guest: Guest, tmp_path: Path
) -> None:
    peer.plug_in()
    nics("em2")
    ip("link set em1 up")  # or its cable would be dead without the network, and pings wait for it at the other end
    running = daemon(uri="embed")
    running.must("setupNetworks", {"net": {}}, {}, QUIET)
    vm_id = boot(running, guest)
    with pinging(peer, tmp_path / "pings") as pings:
        running.must("setupNetworks", {"net": NETWORK}, {}, QUIET)
        until(lambda: pings.answered_after(0), PATIENCE, "the guest to be reached")
        rules = subprocess.run(["nft", "list", "table", "bridge", "vdsmd"], check=True, capture_output=True, text=True)
        assert f'"{tap()}" : jump' in rules.stdout and f"ether saddr != {MAC} drop" in rules.stdout

        # Over the other nic nobody reaches anybody, and no engine calls.
        begun = pings.last_sent
        reply = running.call("setupNetworks", {"net": {**NETWORK, "nic": "em2"}}, {}, {"connectivityTimeout": 2})
        assert code(reply) == 10
        back = pings.last_sent
        until(lambda: pings.answered_after(back), PATIENCE, "the guest to be reached again")
        lost = pings.lost(begun + 1, back)
        assert lost, "the cut was none"
        print(f"pings sent during the change that was taken back: {back - begun}, of which {len(lost)} were lost")

        # An edit that leaves its nic alone, and a re-exec, cost it nothing.
        begun = max(pings.numbers("got"))
        running.must("setupNetworks", {"net": {**NETWORK, "ipaddr": "192.0.2.11", "stp": False}}, {}, QUIET)
        running.reexec()
        back = pings.last_sent
        until(lambda: pings.answered_after(back), PATIENCE, "the guest to be reached after the re-exec")
        assert pings.lost(begun + 1, back) == []

        assert code(running.call("setupNetworks", {"net": {"remove": True}}, {}, QUIET)) == 28
        running.must("destroy", vm_id)
    running.must("setupNetworks", {"net": {"remove": True}}, {}, QUIET)
    assert (
        "from_vd" not in subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    )
