"""The link to a real libvirt, which here is libvirt's own mock: what it is asked for, and what a domain is given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree

from drivers.vm.conf.params import normalise
from drivers.vm.contract import Identity
from drivers.vm.hypervisor.counters import COUNTERS, SIGNS_OF_LIFE
from drivers.vm.hypervisor.kinds import hypervisor_of
from drivers.vm.hypervisor.link import EVENTS, Link, open_first
from drivers.vm.xml import running
from state.release import VERSION
from tests.drivers.vm.conftest import OTHER as MISSING
from tests.drivers.vm.conftest import VM

FILTERED = {"type": "interface", "device": "bridge", "network": "br0", "filter": "no-mac-spoofing", "name": "tap0"}
DISK = {"type": "disk", "device": "disk", "iface": "virtio", "path": "/images/a"}


@pytest.fixture
def link() -> Iterator[Link]:
    link = open_first("test:///default", "", "auto", lambda *event: None, lambda reason: None)
    yield link
    link.close()
    EVENTS.stop(time.monotonic() + 60)


def definition(link: Link, **how: Any) -> etree._Element:
    conf = normalise({"vmId": VM, "memSize": 64, "devices": [FILTERED, DISK]})
    how = {"identity": Identity(), "drive_cache": "none", **how}
    return etree.fromstring(link.definition(conf, channels_dir="/run/channels", console="/run/console", **how))


def test_a_guest_is_told_of_its_host(link: Link) -> None:
    identity = Identity(host_uuid="the-host", os_name="An OS", os_version="12")
    entries = {e.get("name"): e.text for e in definition(link, identity=identity).iterfind("sysinfo/system/entry")}
    assert entries == {
        "manufacturer": "oVirt",
        "product": "An OS",
        "version": "12",
        "serial": "the-host",
        "uuid": VM,
    }


def test_a_domain_says_whose_it_is(link: Link) -> None:
    assert definition(link).findtext(f"metadata/{{{running.NAMESPACE}}}vm/{{{running.NAMESPACE}}}release") == VERSION


def test_the_cache_mode_is_as_configured(link: Link) -> None:
    modes = [definition(link, drive_cache=mode).xpath("string(//disk/driver/@cache)") for mode in ("none", "writeback")]
    assert modes == ["none", "writeback"]


@pytest.mark.parametrize(
    ("uri", "filters"),
    [("qemu:///embed?root=/x", []), ("qemu:///system", ["no-mac-spoofing"]), ("test:///default", ["no-mac-spoofing"])],
)
def test_filters_are_asked_for_where_there_are_any(link: Link, uri: str, filters: list[str]) -> None:
    link.row = hypervisor_of(uri)
    assert definition(link).xpath("//filterref/@filter") == filters


class Asked:
    """Stands before a connection, and notes how statistics are asked for."""

    def __init__(self, connection: Any) -> None:
        self.masks: list[int] = []
        self.lists: list[list[str]] = []
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def getAllDomainStats(self, mask: int, flags: int) -> Any:
        self.masks.append(mask)
        return self._connection.getAllDomainStats(mask, flags)

    def domainListGetStats(self, domains: list[Any], mask: int, flags: int) -> Any:
        self.masks.append(mask)
        self.lists.append([domain.UUIDString() for domain in domains])
        return self._connection.domainListGetStats(domains, mask, flags)


def test_only_what_statistics_need_is_asked_for(link: Link) -> None:
    asked = link._counters._connection = Asked(link._connection)
    # The mock has none of the counters: the domain must be there all the same.
    there = {domain.UUIDString() for domain in link._connection.listAllDomains()}
    assert set(link.statistics([])) >= there != set()
    assert set(link.statistics([], brief=True)) >= there
    assert asked.masks == [COUNTERS, SIGNS_OF_LIFE]


def test_a_domain_that_is_being_ended_holds_up_no_statistics(link: Link) -> None:
    (there,) = (domain.UUIDString() for domain in link._connection.listAllDomains())
    asked = link._counters._connection = Asked(link._connection)
    with link._counters.without(VM):
        assert set(link.statistics([VM, there, MISSING])) == {there}
        assert link.ending == [VM]
    with link._counters.without(there):
        assert link.statistics([there]) == {}
    assert (asked.lists, link.ending) == ([[there]], [])
    told: list[list[str]] = []

    def end(domain: Any, flags: int) -> bool:
        told.append(list(link.ending))
        return True

    link._ended = end  # type: ignore[method-assign]
    link.destroy(there)
    assert (told, link.ending) == ([[there]], [])


def test_what_is_not_known_of_a_machine_is_left_out(link: Link) -> None:
    assert link.known(VM, {"vmId": VM, "devices": []}) == ({}, 0)
