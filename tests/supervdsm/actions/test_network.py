"""Actions on networks, in a network namespace: done twice is done once, only ours is removed, and taps are their user's."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervdsm.actions.tap import NO_INFO, REQUEST, TAP, TUNSETIFF, WITH_VNET_HEADER
from supervdsm.errors import ActionError, AlreadyExists, Busy, Invalid, NotAllowed, NotFound
from supervdsm.links import OUR_TABLES
from tests.drivers.network.namespace import inside, ip, nics, state
from tests.drivers.network.stand import Direct

NOBODY = 65534
TABLE = OUR_TABLES[1]


def link(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ip(f"-d -j addr show dev {name}"))[0]
    return told


def in_namespace(work: Callable[[Direct], None], base: Path, uid: int = 0) -> None:
    inside(lambda: work(Direct(str(base / "private"), uid)))


DEEDS: list[tuple[str, dict[str, Any]]] = [
    ("bridge.create", {"name": "net", "stp": True}),
    ("bridge.edit", {"name": "net", "stp": False}),
    ("link.attach", {"link": "em1", "master": "net"}),
    ("link.mtu", {"link": "em1", "mtu": 1400}),
    ("link.up", {"link": "em1"}),
    ("link.up", {"link": "net"}),
    ("link.autoconf", {"link": "net", "on": False}),
    ("address.add", {"link": "net", "address": "192.0.2.1/24", "broadcast": "192.0.2.255"}),
    ("address.add", {"link": "net", "address": "2001:db8::1/64"}),
    ("route.add", {"destination": "0.0.0.0/0", "link": "net", "gateway": "192.0.2.254"}),
    ("route.add", {"destination": "::/0", "link": "net", "gateway": "2001:db8::2", "metric": 512}),
    ("rule.add", {"table": TABLE, "source": "192.0.2.1/32"}),
    ("rule.add", {"table": TABLE, "destination": "2001:db8::/64", "link": "net"}),
    ("rate.set", {"link": "em1", "handle": 7, "limits": {"in": {"average": 100}, "out": {"average": 9, "burst": 80}}}),
    ("rate.clear", {"link": "em1"}),
    ("rule.delete", {"table": TABLE, "destination": "2001:db8::/64", "link": "net"}),
    ("rule.delete", {"table": TABLE, "source": "192.0.2.1/32"}),
    ("tap.create", {"name": "vdnet0", "bridge": "net", "mtu": 1400, "mac": "52:54:00:00:00:01"}),
    ("tap.delete", {"name": "vdnet0"}),
    ("route.delete", {"destination": "::/0", "link": "net", "gateway": "2001:db8::2", "metric": 512}),
    ("route.delete", {"destination": "0.0.0.0/0", "link": "net", "gateway": "192.0.2.254"}),
    ("address.delete", {"link": "net", "address": "2001:db8::1/64"}),
    ("address.delete", {"link": "net", "address": "192.0.2.1/24"}),
    ("link.mtu", {"link": "em1", "mtu": 1500}),
    ("link.down", {"link": "em1"}),
    ("link.detach", {"link": "em1", "master": "net"}),
    ("link.delete", {"link": "net"}),
]


def test_done_twice_is_done_once_and_undone_is_undone(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        nics("em1")
        before = state()
        for action, arguments in DEEDS:
            root.call(action, **arguments)
            once = state()
            root.call(action, **arguments)
            assert state() == once, action
        assert state() == before

    in_namespace(work, tmp_path)


REFUSED: list[tuple[type[ActionError], str, dict[str, Any]]] = [
    (NotAllowed, "link.delete", {"link": "em1"}),
    (NotAllowed, "link.delete", {"link": "theirs"}),
    (NotAllowed, "link.delete", {"link": "lo"}),
    (NotAllowed, "bridge.edit", {"name": "theirs", "stp": True}),
    (AlreadyExists, "bridge.create", {"name": "theirs"}),
    (AlreadyExists, "bridge.create", {"name": "em1"}),
    (NotAllowed, "link.attach", {"link": "em1", "master": "em2"}),
    (NotFound, "link.attach", {"link": "em1", "master": "nobody"}),
    (Busy, "link.attach", {"link": "em2", "master": "theirs"}),
    (NotFound, "link.up", {"link": "nobody"}),
    (Invalid, "link.mtu", {"link": "em1", "mtu": 1}),
    (Invalid, "link.autoconf", {"link": "../all", "on": True}),
    (Invalid, "link.autoconf", {"link": "..", "on": True}),
    (Invalid, "link.autoconf", {"link": "all", "on": True}),
    (Invalid, "link.autoconf", {"link": "default", "on": True}),
    (Invalid, "link.up", {"link": "a name with spaces"}),
    (Invalid, "link.up", {"link": ""}),
    (Invalid, "bridge.create", {"name": "longer-than-fifteen"}),
    (Invalid, "address.add", {"link": "em1", "address": "192.0.2.1"}),
    (Invalid, "address.add", {"link": "em1", "address": "192.0.2.1/33"}),
    (Invalid, "route.add", {"destination": "192.0.2.1/24", "link": "em1"}),
    (Invalid, "route.add", {"destination": "0.0.0.0/0", "link": "em1", "gateway": "203.0.113.9"}),
    (Invalid, "vlan.create", {"name": "em1.5", "link": "em1", "tag": 4095}),
    (Invalid, "bond.create", {"name": "bond0", "options": {"mode": "fast"}}),
    (Invalid, "bond.create", {"name": "bond0", "options": {"colour": "1"}}),
    (NotAllowed, "tap.create", {"name": "tap0"}),
    (NotAllowed, "tap.create", {"name": "vnet0"}),
    (AlreadyExists, "tap.create", {"name": "vdnic"}),
    (NotAllowed, "tap.create", {"name": "vdnet1", "bridge": "em1"}),
    (NotFound, "tap.create", {"name": "vdnet1", "bridge": "nobody"}),
    (NotAllowed, "tap.delete", {"name": "theirtap"}),
    (NotAllowed, "tap.delete", {"name": "vdnic"}),
    (NotFound, "dhcp.start", {"link": "nobody", "default_route": False}),
    (NotAllowed, "dhcp.start", {"link": "em1", "default_route": False, "table": 254}),
    (NotAllowed, "dhcp.stop", {"link": "em1", "table": 254}),
    (NotFound, "dhcp6.start", {"link": "nobody"}),
    (Invalid, "dhcp6.stop", {"link": "../run"}),
    (NotAllowed, "rule.add", {"table": 254, "source": "192.0.2.1/32"}),
    (NotAllowed, "rule.delete", {"table": 254}),
    (Invalid, "rule.add", {"table": TABLE}),
    (Invalid, "rule.add", {"table": TABLE, "source": "192.0.2.1/24"}),
    (NotFound, "rate.set", {"link": "nobody", "handle": 1, "limits": {"in": {"average": 1}}}),
    (Invalid, "rate.set", {"link": "em1", "handle": 0, "limits": {"in": {"average": 1}}}),
    (Invalid, "rate.set", {"link": "em1", "handle": 1, "limits": {"up": {"average": 1}}}),
    (Invalid, "rate.set", {"link": "em1", "handle": 1, "limits": {"in": {"average": 0}}}),
    (Invalid, "rate.set", {"link": "em1", "handle": 1, "limits": {"in": {"colour": 1}}}),
    (Invalid, "rate.set", {"link": 'a"b', "handle": 1, "limits": {"in": {"average": 1}}}),
]


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    def work(root: Direct) -> None:
        nics("em1", "em2", "vdnic")
        ip("link add above link em2 type macvlan")
        ip("link add name theirs type bridge")
        ip("tuntap add theirtap mode tap")
        before = state()
        for kind, action, arguments in REFUSED:
            with pytest.raises(kind):
                root.call(action, **arguments)
            assert state() == before, (action, arguments)

    in_namespace(work, tmp_path)


def test_a_tap_is_for_the_daemons_user_alone(tmp_path: Path) -> None:
    def opens(uid: int) -> bool:
        """Say whether a process of that user can use the tap."""
        pid = os.fork()
        if pid == 0:
            try:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                tun = os.open("/dev/net/tun", os.O_RDWR)
                fcntl.ioctl(tun, TUNSETIFF, REQUEST.pack(b"vdnet0", TAP | NO_INFO | WITH_VNET_HEADER))
            except OSError:
                os._exit(1)
            os._exit(0)
        return os.waitpid(pid, 0)[1] == 0

    def work(root: Direct) -> None:
        root.call("bridge.create", name="net")
        root.call("tap.create", name="vdnet0", bridge="net", mtu=1400, mac="52:54:00:12:34:56")
        told = link("vdnet0")
        assert (told["master"], told["mtu"], told["address"]) == ("net", 1400, "fe:54:00:12:34:56")
        assert "UP" in told["flags"]
        assert opens(NOBODY)
        assert not opens(NOBODY - 1)
        assert link("vdnet0")["linkinfo"]["info_data"]["persist"]

    in_namespace(work, tmp_path, NOBODY)
