"""Filters, limits and mirrors of guests' taps, on frames: what a guest sends and gets is read from the taps themselves."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervdsm.actions.tap import NO_INFO, REQUEST, TAP, TUNSETIFF
from supervdsm.errors import ActionError, Invalid, NotAllowed, NotFound
from tests.drivers.network.namespace import inside, ip, nics, state
from tests.drivers.network.stand import Direct
from tests.until import until

pytestmark = pytest.mark.slow

MACS = {"vda": "52:54:00:00:00:0a", "vdb": "52:54:00:00:00:0b", "vdc": "52:54:00:00:00:0c"}
EVERYBODY = "ff:ff:ff:ff:ff:ff"
ARP = 0x0806
OURS = 0x88B5
"""A kind of frame that nobody else sends: it is for experiments."""


def in_namespace(work: Callable[[Direct], None], base: Path) -> None:
    inside(lambda: work(Direct(str(base / "private"))))


class Card:
    """The guest's side of a tap."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, text: str, source: str, to: str = EVERYBODY) -> None:
        os.write(self.fd, packed(to) + packed(source) + OURS.to_bytes(2, "big") + text.encode())

    def send_arp(self, source: str, claimed: str) -> None:
        body = (
            bytes.fromhex("0001080006040002") + packed(claimed) + bytes([192, 0, 2, 1]) + packed(EVERYBODY) + bytes(4)
        )
        os.write(self.fd, packed(EVERYBODY) + packed(source) + ARP.to_bytes(2, "big") + body)

    def gets(self, kind: int = OURS) -> list[str]:
        """Return what has come in of a kind, without waiting."""
        found = []
        while select.select([self.fd], [], [], 0)[0]:
            frame = os.read(self.fd, 65536)
            if int.from_bytes(frame[12:14], "big") == kind:
                found.append(
                    frame[14:].decode("ascii", "replace").rstrip("\0") if kind == OURS else frame[6:12].hex(":")
                )
        return found


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@contextmanager
def guests(root: Direct, *names: str, bridge: str = "net") -> Iterator[list[Card]]:
    """Plug guests' cards into a bridge."""
    cards = []
    try:
        for name in names:
            root.call("tap.create", name=name, bridge=bridge, mac=MACS[name])
            cards.append(Card(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)))
            fcntl.ioctl(cards[-1].fd, TUNSETIFF, REQUEST.pack(name.encode(), TAP | NO_INFO))
        until(lambda: all("forwarding" in ip(f"-d link show {name}") for name in names), 60, "the ports to be open")
        yield cards
    finally:
        for card in cards:
            os.close(card.fd)


def arrived(sender: Card, receiver: Card, mac: str, seen: list[str]) -> bool:
    """Whether a frame that the sender may send has arrived by now; `seen` gets all that did."""
    sender.send("last", mac)
    seen += receiver.gets()
    return "last" in seen


def passing(sender: Card, receiver: Card, mac: str) -> list[str]:
    """Return what has come of what was sent before: frames overtake no frames."""
    seen: list[str] = []
    until(lambda: arrived(sender, receiver, mac, seen), 60, "a frame that is allowed")
    return [text for text in seen if text != "last"]


def rules() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def bridge(root: Direct, name: str = "net") -> None:
    root.call("bridge.create", name=name)
    root.call("link.up", link=name)


def test_a_guest_sends_only_with_its_own_address(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        bridge(root)
        mine = MACS["vda"]
        with guests(root, "vda", "vdb") as (sender, receiver):
            sender.send("false", MACS["vdb"])
            assert passing(sender, receiver, mine) == ["false"]
            for _ in range(2):
                root.call("filter.set", link="vda", mac=mine.upper())
                sender.send("false", MACS["vdc"])
                sender.send("true", mine)
                assert passing(sender, receiver, mine) == ["true"]
            sender.send_arp(mine, MACS["vdc"])
            sender.send_arp(mine, mine)
            until(lambda: receiver.gets(ARP) == [mine], 60, "the message that is true, alone")
            receiver.send("others may", MACS["vdc"])
            assert passing(receiver, sender, MACS["vdb"]) == ["others may"]
            root.call("filter.clear", link="vda")
            sender.send("false again", MACS["vdc"])
            assert passing(sender, receiver, mine) == ["false again"]

    in_namespace(work, tmp_path)


def test_a_guest_sends_no_more_than_it_may(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        bridge(root)
        with guests(root, "vda", "vdb") as (sender, receiver):
            root.call("filter.set", link="vda", rate=1, burst=16)
            for number in range(300):
                sender.send(f"{number:0>1000}", MACS["vda"])
            came = passing(sender, receiver, MACS["vda"])
            assert 0 < len(came) < 200

    in_namespace(work, tmp_path)


def test_a_limit_of_what_reaches_a_guest_is_set_and_taken_away(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        root.call("tap.create", name="vda")
        before = ip("-d link show vda")
        for _ in range(2):
            root.call("tap.limit", name="vda", rate=1000, burst=100)
        told = subprocess.run(["tc", "qdisc", "show", "dev", "vda"], check=True, capture_output=True, text=True).stdout
        assert "tbf" in told and "rate 8192Kbit burst 100Kb" in told
        for _ in range(2):
            root.call("tap.limit", name="vda", rate=0)
        assert ip("-d link show vda") == before

    in_namespace(work, tmp_path)


def test_a_filter_goes_with_its_tap(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        for name in ("vda", "vdb"):
            root.call("tap.create", name=name)
            root.call("filter.set", link=name, mac=MACS[name])
        root.call("tap.delete", name="vda")
        assert "from_vda" not in rules() and "from_vdb" in rules()
        ip("link del vdb")
        for _ in range(2):
            root.call("tap.delete", name="vdb")
        assert "from_vd" not in rules()
        assert os.listdir(tmp_path / "private" / "filters") == []

    in_namespace(work, tmp_path)


def test_a_mirror_shows_all_that_passes_a_bridge(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        bridge(root)
        bridge(root, "watch")
        with (
            guests(root, "vda", "vdb") as (one, other),
            guests(root, "vdc", bridge="watch") as (watcher,),
        ):
            passing(one, other, MACS["vda"])
            passing(other, one, MACS["vdb"])
            before = state()
            for _ in range(2):
                root.call("mirror.set", bridge="net", link="vdc")
            one.send("between two", MACS["vda"], MACS["vdb"])
            assert passing(one, watcher, MACS["vda"]) == ["between two"]
            assert passing(one, other, MACS["vda"])[:1] == ["between two"]
            host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            host.bind(("net", 0))
            host.send(packed(MACS["vdb"]) + packed(MACS["vdc"]) + OURS.to_bytes(2, "big") + b"from the host")
            host.close()
            until(lambda: "from the host" in watcher.gets(), 60, "what the host sends")
            for _ in range(2):
                root.call("mirror.unset", bridge="net", link="vdc")
            assert state() == before
            one.send("unseen", MACS["vda"], MACS["vdb"])
            passing(one, other, MACS["vda"])
            assert watcher.gets() == []

    in_namespace(work, tmp_path)


def test_two_may_watch_and_mirrors_go_with_their_taps(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        bridge(root)
        bridge(root, "watch")
        with guests(root, "vda") as (one,), guests(root, "vdb", "vdc", bridge="watch") as (second, third):
            before = promiscuous("net")
            for name in ("vdb", "vdc"):
                root.call("mirror.set", bridge="net", link=name)
            one.send("seen", MACS["vda"])
            for watcher in (second, third):
                until(lambda watcher=watcher: "seen" in watcher.gets(), 60, "the copy")  # type: ignore[misc]
            root.call("tap.delete", name="vdb")
            one.send("seen again", MACS["vda"])
            until(lambda: "seen again" in third.gets(), 60, "the copy")
            assert promiscuous("net") and not before
            root.call("tap.delete", name="vdc")
            assert not promiscuous("net")
        root.call("link.delete", link="net")

    in_namespace(work, tmp_path)


def promiscuous(name: str) -> bool:
    return "PROMISC" in json.loads(ip(f"-j link show {name}"))[0]["flags"]


REFUSED: list[tuple[type[ActionError], str, dict[str, Any]]] = [
    (NotAllowed, "filter.set", {"link": "em1", "mac": MACS["vda"]}),
    (NotAllowed, "filter.set", {"link": "vdnic", "mac": MACS["vda"]}),
    (NotFound, "filter.set", {"link": "vdnobody", "mac": MACS["vda"]}),
    (Invalid, "filter.set", {"link": "vda", "mac": "any drop"}),
    (Invalid, "filter.set", {"link": "vda", "rate": -1}),
    (Invalid, "filter.clear", {"link": "../vda"}),
    (NotAllowed, "mirror.set", {"bridge": "net", "link": "em1"}),
    (NotAllowed, "mirror.set", {"bridge": "em1", "link": "vda"}),
    (NotFound, "mirror.set", {"bridge": "nobody", "link": "vda"}),
    (Invalid, "mirror.unset", {"bridge": "..", "link": "vda"}),
    (NotAllowed, "tap.limit", {"name": "em1", "rate": 1}),
    (NotFound, "tap.limit", {"name": "vdnobody", "rate": 1}),
    (Invalid, "tap.limit", {"name": "vda", "rate": 2**40}),
]


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        nics("em1", "vdnic")
        bridge(root)
        root.call("tap.create", name="vda")
        before = state(), rules()
        for kind, action, arguments in REFUSED:
            with pytest.raises(kind):
                root.call(action, **arguments)
            assert (state(), rules()) == before, (action, arguments)

    in_namespace(work, tmp_path)
