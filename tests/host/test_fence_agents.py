"""Fencing by the agents that hosts really have, of devices that are simulated."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import DriverError
from tests import certificates
from tests.host.bmc import PASSWORD, USER, Ipmi, Redfish, free_port
from tests.running import Running
from tests.supervdsm.helper import Helper
from vdsmd.host.fencing import AgentFailed, Fence, fence

AGENTS = Path("/usr/sbin")


pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="fence agents are root's")]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


ipmi_needed = needs("fence_ipmilan", "ipmitool", "ipmi_sim")


class Watch:
    """Looks at the arguments of all processes, over and over, for a secret."""

    def __init__(self, secret: str) -> None:
        self.seen: set[bytes] = set()
        self._secret = secret.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            for name in filter(str.isdigit, os.listdir("/proc")):
                try:
                    arguments = Path("/proc", name, "cmdline").read_bytes()
                except OSError:
                    continue
                if self._secret in arguments:
                    self.seen.add(arguments)


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper(options={"supervdsm": {"fence_agents_dir": AGENTS}})
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ipmi(tmp_path: Path) -> Iterator[Ipmi]:
    bmc = Ipmi(tmp_path / "bmc")
    try:
        yield bmc
    finally:
        bmc.close()


def run(helper: Helper, agent: str, action: str, **given: Any) -> dict[str, Any]:
    asked = {"addr": "127.0.0.1", "port": "", "username": USER, "password": PASSWORD}
    return fence(helper.client, Fence(**{**asked, "agent": agent, "action": action, **given}), lambda *_: None)


def switch(helper: Helper, agent: str, options: str) -> list[Any]:
    """Return what an agent says of a host that is switched off and on."""
    return [
        run(helper, agent, action, options=options).get("power" if action == "status" else "operationStatus")
        for action in ("status", "off", "status", "on", "status", "reboot", "monitor")
    ]


SWITCHED = ["on", "initiated", "off", "initiated", "on", "initiated", "initiated"]


@ipmi_needed
def test_a_bmc_is_switched_and_nobody_sees_the_password(helper: Helper, ipmi: Ipmi) -> None:
    with Watch(PASSWORD) as watch:
        # An option that it does not know stands in no log, as it would if the agent were told.
        assert switch(helper, "ipmilan", f"{ipmi.options}\nsnmp_community={PASSWORD}") == SWITCHED
    assert watch.seen == set()
    assert [line for line in ipmi.asked.read_text().splitlines() if "set" in line] == [
        "set power 0",
        "set power 1",
        "set power 0",
        "set power 1",
    ]
    log = helper.log()
    assert PASSWORD not in log and "snmp_community" in log


@ipmi_needed
def test_a_wrong_password_is_a_failure(helper: Helper, ipmi: Ipmi) -> None:
    options = f"{ipmi.options}\nipmitool_timeout=1"
    assert run(helper, "ipmilan", "status", options=options, password="wrong") == {"power": "unknown"}
    assert ipmi.asked.read_text() == ""


@ipmi_needed
def test_a_device_that_does_not_answer_is_a_failure(helper: Helper) -> None:
    options = f"ipport={free_port()}\npower_timeout=1"
    assert run(helper, "ipmilan", "status", options=options) == {"power": "unknown"}
    done = run(helper, "ipmilan", "off", options=options)
    assert done["status"]["code"] == 1 and "ERROR" in done["status"]["message"]


@ipmi_needed
@pytest.mark.parametrize(
    "option",
    ["ipmitool_path=/bin/true", "passwd-script=/bin/true", "debug=/tmp/x", "help=1", "version=1", "use_sudo=1"],
)
def test_what_an_agent_takes_and_no_caller_may_give(helper: Helper, option: str) -> None:
    with pytest.raises((AgentFailed, DriverError), match=option.partition("=")[0]):
        run(helper, "ipmilan", "off", options=option)


@needs("fence_redfish")
def test_redfish_is_switched(helper: Helper, tmp_path: Path) -> None:
    certificates.authority(tmp_path, "bmc")
    bmc = Redfish(tmp_path, "bmc")
    try:
        with Watch(PASSWORD) as watch:
            assert run(helper, "redfish", "off", options=bmc.options)["operationStatus"] == "initiated"
            assert run(helper, "redfish", "status", options=bmc.options) == {"power": "off"}
        assert watch.seen == set()
        assert run(helper, "redfish", "status", options=bmc.options, password="wrong") == {"power": "unknown"}
        # Nobody knows who signed its certificate.
        doubtful = bmc.options.replace("ssl_insecure=1", "")
        assert run(helper, "redfish", "status", options=doubtful) == {"power": "unknown"}
    finally:
        bmc.close()


@ipmi_needed
def test_a_daemon_fences_by_ipmi(daemon: Callable[..., Running], ipmi: Ipmi) -> None:
    running = daemon(config={"supervdsm": {"fence_agents_dir": AGENTS}})
    who = ("127.0.0.1", "", "ipmilan", USER, PASSWORD)
    assert running.must("fenceNode", *who, "status", False, ipmi.options)["power"] == "on"
    done = running.must("fenceNode", *who, "off", False, ipmi.options, {})
    assert (done["power"], done["operationStatus"]) == ("unknown", "initiated")
    assert running.must("fenceNode", *who, "status", "false", ipmi.options)["power"] == "off"
    assert PASSWORD not in running.log()
