"""Networks through a whole daemon, with its helper, in a network namespace: the verbs, and what a death in between leaves."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.network.namespace import different, inside, ip, nics, state
from tests.running import PATIENCE, Running
from tests.until import until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

QUIET = {"connectivityCheck": False}
STATIC = {
    "nic": "em1",
    "bootproto": "static",
    "ipaddr": "192.0.2.10",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
}
OWN_SYSFS = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh"]
"""Shows a daemon the devices of its own namespace in /sys, too."""

Start = Callable[..., Running]


def started(daemon: Start, *names: str) -> Running:
    nics(*names)
    return daemon(launcher=OWN_SYSFS)


def code(reply: dict[str, Any]) -> int:
    return int(reply["status"]["code"])


def caps(running: Running) -> dict[str, Any]:
    info: dict[str, Any] = running.must("getVdsCapabilities")["info"]
    return info


def test_a_network_is_set_up_shown_kept_and_removed(daemon: Start) -> None:
    running = started(daemon, "em1", "em2")
    before = state()
    assert running.must("setupNetworks", {"net": STATIC}, {}, QUIET)
    info = caps(running)
    net = info["networks"]["net"]
    assert (net["addr"], net["netmask"], net["gateway"]) == ("192.0.2.10", "255.255.255.0", "192.0.2.1")
    assert (net["iface"], net["bridged"], net["ports"], net["stp"]) == ("net", True, ["em1"], "off")
    assert net["cfg"]["IPADDR"] == "192.0.2.10"
    assert info["bridges"]["net"]["ports"] == ["em1"]
    assert info["netConfigDirty"] == "True"
    assert running.must("getVdsStats")["info"]["netConfigDirty"] == "True"
    running.must("setSafeNetworkConfig")
    assert running.must("getVdsStats")["info"]["netConfigDirty"] == "False"
    assert running.must("getRoute", "198.51.100.7")["gateway"] == "192.0.2.1"
    assert running.must("getRoute", "192.0.2.7")["gateway"] == ""
    assert code(running.call("addNetwork", "net", "", "", ["em2"], {})) == 28
    running.must("addNetwork", "more", "", "", ["em2"], {"mtu": "1400", "STP": "yes"})
    running.must("editNetwork", "more", "other", "", "", ["em2"], {"mtu": "1300"})
    assert caps(running)["networks"]["other"]["mtu"] == "1300"
    assert code(running.call("delNetwork", "more", "", "", ["em2"], {})) == 27
    running.must("delNetwork", "other", "", "", ["em2"], {})
    running.must("setupNetworks", {"net": {"remove": True}}, {}, QUIET)
    assert caps(running)["networks"] == {}
    assert different(before, state()) == []


def test_a_plan_is_shown_and_changes_nothing(daemon: Start) -> None:
    running = started(daemon, "em1")
    before = state()
    steps = running.must("vdsmd.planNetworks", {"net": STATIC}, {}, {})["steps"]
    assert "bridge.create name=net stp=off" in steps
    assert different(before, state()) == []


def test_hooks_see_a_change_and_may_forbid_it(daemon: Start, tmp_path: Path) -> None:
    nics("em1")
    ran = tmp_path / "ran"

    def add(point: str, body: str) -> None:
        path = tmp_path / "hooks" / point / "50_test"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n(printf '{point} '; cat $_hook_json; echo) >> {ran}\n{body}\n")
        path.chmod(0o755)

    def told() -> list[tuple[str, Any]]:
        lines = [line.split(" ", 1) for line in ran.read_text().splitlines()]
        ran.unlink()
        return [(point, json.loads(data)["request"]) for point, data in lines]

    for point in ("after_network_setup", "after_network_setup_fail"):
        add(point, "")
    add("before_network_setup", """sed -i 's/"mtu":"1401"/"mtu":"1402"/' $_hook_json""")
    running = daemon(launcher=OWN_SYSFS, config={"paths": {"hooks": tmp_path / "hooks"}})
    asked = {"nic": "em1", "mtu": "1401", "custom": {"colour": "blue"}}
    running.must("setupNetworks", {"net": asked}, {}, QUIET)
    assert caps(running)["networks"]["net"]["mtu"] == "1402"
    (before, seen), (after, left) = told()
    assert (before, after) == ("before_network_setup", "after_network_setup")
    assert seen == {"networks": {"net": asked}, "bondings": {}, "options": QUIET}
    assert left["networks"]["net"] == {**asked, "mtu": "1402"}
    assert code(running.call("setupNetworks", {"net": {"nic": "nobody"}}, {}, QUIET)) == 23
    assert [point for point, _ in told()] == ["before_network_setup", "after_network_setup_fail"]
    add("before_network_setup", "exit 2")
    assert code(running.call("delNetwork", "net", "", "", ["em1"], {})) == 78
    add("before_network_setup", "echo '{\"request\": []}' > $_hook_json")
    assert code(running.call("delNetwork", "net", "", "", ["em1"], {})) == 21
    assert "net" in caps(running)["networks"]


def test_networks_survive_reexec_and_crash(daemon: Start) -> None:
    running = started(daemon, "em1")
    running.must("setupNetworks", {"net": STATIC}, {}, QUIET)
    before, network = state(), caps(running)["networks"]
    running.reexec()
    assert caps(running)["networks"] == network
    running.kill()
    ip("link set em1 nomaster")
    again = daemon(again=running, launcher=OWN_SYSFS)
    until(lambda: state() == before, PATIENCE, "the network to be repaired")
    assert caps(again)["networks"] == network


def test_the_engine_calls_or_it_is_taken_back(daemon: Start) -> None:
    running = started(daemon, "em1", "em2")
    before = state()
    assert code(running.call("setupNetworks", {"net": STATIC}, {}, {"connectivityTimeout": 1})) == 10
    assert different(before, state()) == []
    stop = threading.Event()

    def engine() -> None:
        while not stop.wait(0.05):
            running.call("ping")

    # A thread of the namespace: whoever it is made by gives it its network.
    caller = threading.Thread(target=engine)
    caller.start()
    try:
        running.must("setupNetworks", {"net": STATIC}, {}, {"connectivityTimeout": 60})
    finally:
        stop.set()
        caller.join()
    assert "192.0.2.10" in ip("addr show net")


def test_a_reexec_waits_until_a_change_has_ended(daemon: Start) -> None:
    running = started(daemon, "em1")
    before = state()
    answer: list[int] = []
    request: tuple[Any, ...] = ({"net": STATIC}, {}, {"connectivityTimeout": 3})
    caller = threading.Thread(target=lambda: answer.append(code(running.call("setupNetworks", *request))))
    caller.start()
    until(lambda: "192.0.2.10" in ip("addr"), PATIENCE, "the change to be made")
    os.kill(running.pid, signal.SIGHUP)
    until(lambda: running.generation == 1, PATIENCE, "the re-exec")
    caller.join()
    assert answer == [10]
    assert different(before, state()) == []


def test_a_kill_in_the_middle_is_taken_back_by_the_next(daemon: Start) -> None:
    running = started(daemon, "em1")
    before = state()
    request: tuple[Any, ...] = ({"net": STATIC}, {}, {"connectivityTimeout": 600})

    def call() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            running.call("setupNetworks", *request)

    caller = threading.Thread(target=call)
    caller.start()
    until(lambda: "192.0.2.10" in ip("addr"), PATIENCE, "the change to be made")
    running.kill()
    caller.join()
    again = daemon(again=running, launcher=OWN_SYSFS)
    until(lambda: state() == before, PATIENCE, "the change to be taken back")
    assert caps(again)["networks"] == {}


def test_without_the_namespace_nothing_is_left() -> None:
    inside(lambda: nics("em1"))
    assert "em1" not in ip("link")
