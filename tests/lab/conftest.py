"""Fixtures of the lab: vdsmd installed as a service, and a guest that all tests of a module share, because it boots slowly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import Guest
from tests.lab import installation
from tests.lab.service import Service
from tests.live.test_guests import boot, settled
from tests.until import until

PATIENCE = 300.0
OPTIONS: installation.Options = {
    "vars": {"ssl": "false"},
    "addresses": {"management_ip": "127.0.0.1", "management_port": 0},
    "libvirt": {"uri": "qemu:///embed?root=/var/lib/vdsm/libvirt", "virt_type": "qemu"},
}


@pytest.fixture(scope="module")
def options() -> installation.Options:
    """Return the configuration of the module's daemon."""
    return OPTIONS


@pytest.fixture(scope="module")
def installed(options: installation.Options) -> Iterator[Service]:
    """Install it. At the end nothing of it is left."""
    installation.install(options)
    try:
        yield Service()
    finally:
        installation.remove()


@pytest.fixture
def service(installed: Service) -> Service:
    """Return the service, running and at a safe point."""
    service = installed.start()
    until(lambda: settled(service), PATIENCE, "a safe point")
    return service


@pytest.fixture(scope="module")
def machine(installed: Service, guest: Guest) -> tuple[str, int]:
    """Return the id and the pid of the module's guest, which counts."""
    [(vm_id, pid)] = boot(installed.start(), guest).items()
    return vm_id, pid


@pytest.fixture
def other() -> str:
    """Return the name of the second host, which can be reached by ssh."""
    subprocess.run(["ssh", "host2", "true"], check=True)
    return "host2"
