"""The MAC address of a bridge of ours is that of its first port, whatever udev has given it a moment after it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.drivers.network.namespace import ip, nics
from tests.drivers.network.stand import Direct

pytestmark = pytest.mark.netns

OF_UDEV = "02:00:00:00:00:99"


def mac(name: str) -> str:
    found: str = json.loads(ip(f"-j link show {name}"))[0]["address"]
    return found


def bridge(base: Path) -> Direct:
    """Make a bridge, and give it an address as udev does."""
    root = Direct(str(base))
    root.call("bridge.create", name="net")
    ip(f"link set net address {OF_UDEV}")
    return root


def test_a_bridge_takes_that_of_its_first_nic_for_good(tmp_path: Path) -> None:
    nics("em1", "em2")
    root = bridge(tmp_path)
    for _ in range(2):
        root.call("link.attach", link="em1", master="net")
        assert mac("net") == mac("em1")
    root.call("link.attach", link="em2", master="net")
    assert mac("net") == mac("em1")
    root.call("link.detach", link="em1", master="net")
    root.call("link.detach", link="em2", master="net")
    root.call("link.attach", link="em2", master="net")
    assert mac("net") == mac("em2")


def test_taps_of_guests_do_not_count(tmp_path: Path) -> None:
    nics("em1")
    root = bridge(tmp_path)
    ip("tuntap add tap1 mode tap")
    root.call("link.attach", link="tap1", master="net")
    assert mac("net") == OF_UDEV
    root.call("link.attach", link="em1", master="net")
    assert mac("net") == mac("em1")


def test_bridges_of_others_keep_theirs(tmp_path: Path) -> None:
    nics("em1")
    ip(f"link add net address {OF_UDEV} type bridge")
    Direct(str(tmp_path)).call("link.attach", link="em1", master="net")
    assert mac("net") == OF_UDEV
