"""Nics that ask for the filter of engines, under a libvirt daemon: it is defined where it is missing, and does what it says."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator

import pytest

from tests.libvirts import Libvirts
from tests.running import PATIENCE, Stage
from tests.until import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces"),
    pytest.mark.skipif(not shutil.which("ebtables"), reason="libvirt filters with ebtables"),
]

NAME = "vdsm-no-mac-spoofing"
MAC = "52:54:00:5a:4d:01"


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[Libvirts]:
    stage = Stage()
    failed = request.session.testsfailed
    libvirts = None
    try:
        libvirts = Libvirts(stage)
        yield libvirts
    finally:
        for daemon in stage.daemons:
            daemon.stop()
        if libvirts is not None:
            libvirts.empty()
            libvirts.clear()
        stage.clear(tell=request.session.testsfailed > failed)


def test_a_nic_with_the_filter_of_engines_is_plugged_in(hosts: Libvirts) -> None:
    host = hosts.hosts[0]
    virsh = ("virsh", "-c", host.uri)
    assert NAME not in host.run(*virsh, "nwfilter-list")
    daemon = hosts.daemon(0)
    until(lambda: NAME in host.run(*virsh, "nwfilter-list"), PATIENCE, "the filter to be defined")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "up")
    nic = {
        "type": "interface",
        "device": "bridge",
        "network": "br0",
        "macAddr": MAC,
        "nicModel": "virtio",
        "filter": NAME,
    }
    vm_id = str(uuid.uuid4())
    daemon.must("create", {"vmId": vm_id, "vmName": "filtered", "memSize": 16, "smp": "1", "devices": [nic]})
    until(lambda: MAC in rules(hosts), PATIENCE, "the guest to be filtered")
    assert f"-s ! {MAC} -j drop" in rules(hosts), rules(hosts)
    daemon.stop()
    again = hosts.daemon(0, again=daemon)
    assert host.run(*virsh, "nwfilter-list").count(NAME) == 1
    again.must("destroy", vm_id)
    until(lambda: MAC not in rules(hosts), PATIENCE, "the rules to be gone")


def rules(hosts: Libvirts) -> str:
    return hosts.hosts[0].run("ebtables", "-t", "nat", "-L").lower()
