"""An operator's scripts around verbs, and around the life of a daemon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import Running

Start = Callable[..., Running]
VM = "11111111-2222-4333-8444-555555555555"


class Scripts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hooks"
        self.ran = folder / "ran"

    def add(self, point: str, body: str) -> None:
        path = self.folder / point / "50_test"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {point} >> {self.ran}\n{body}\n")
        path.chmod(0o755)

    def order(self) -> list[str]:
        return self.ran.read_text().split() if self.ran.exists() else []


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


def start(daemon: Start, scripts: Scripts) -> Running:
    return daemon(config={"paths": {"hooks": scripts.folder}})


def test_scripts_change_what_verbs_answer(daemon: Start, scripts: Scripts) -> None:
    running = start(daemon, scripts)
    running.must("create", {"vmId": VM, "memSize": 64, "vmName": "m"})
    changes = {
        "get_vm_stats": ("vmName", "getVmStats", (VM,)),
        "get_all_vm_stats": ("vmName", "getAllVmStats", ()),
        "get_stats": ("momStatus", "getVdsStats", ()),
        "get_caps": ("cpuModel", "getVdsCapabilities", ()),
    }
    for point, (member, verb, args) in changes.items():
        scripts.add(f"before_{point}", "")
        scripts.add(f"after_{point}", f"""sed -i 's/"{member}":"[^"]*"/"{member}":"hooked"/' $_hook_json""")
        reply = running.must(verb, *args)
        told = reply["info"] if "info" in reply else reply["statsList"][0]
        assert told[member] == "hooked", verb
    assert scripts.order() == [f"{when}_{point}" for point in changes for when in ("before", "after")]
    scripts.add("after_hostdev_list_by_caps", """printf '{"own": {"params": {"capability": "pci"}}}' > $_hook_json""")
    assert set(running.must("hostdevListByCaps")["deviceList"]) == {"own"}
    assert running.must("hostdevListByCaps", ["pci"])["deviceList"]["own"]["params"]["capability"] == "pci"


def test_the_capabilities_list_them(daemon: Start, scripts: Scripts) -> None:
    running = start(daemon, scripts)
    assert running.must("getVdsCapabilities")["info"]["hooks"] == {}
    scripts.add("before_vm_start", "")
    found = running.must("getVdsCapabilities")["info"]["hooks"]
    assert found.keys() == {"before_vm_start"}
    assert len(found["before_vm_start"]["50_test"]["md5"]) == 32


def test_a_failure_before_is_the_answer_and_one_after_is_none(daemon: Start, scripts: Scripts) -> None:
    running = start(daemon, scripts)
    scripts.add("after_get_stats", "echo nonsense > $_hook_json; exit 1")
    assert running.must("getVdsStats")["info"]["vmCount"] == 0
    scripts.add("before_get_stats", "echo because >&2; exit 1")
    status = running.call("getVdsStats")["status"]
    assert status["code"] == 78
    assert "50_test: because" in status["message"]
    assert running.call("getVmStats", VM)["status"]["code"] == 1
    scripts.add("before_get_vm_stats", "")
    assert running.call("getVmStats", VM)["status"]["code"] == 1


def test_a_start_and_a_stop_run_scripts_and_a_reexec_runs_none(daemon: Start, scripts: Scripts) -> None:
    scripts.add("before_vdsm_start", "exit 1")
    scripts.add("after_vdsm_stop", "")
    running = start(daemon, scripts)
    assert scripts.order() == ["before_vdsm_start"]
    running.reexec()
    assert scripts.order() == ["before_vdsm_start"]
    assert running.end(signal.SIGTERM) == 0
    assert scripts.order() == ["before_vdsm_start", "after_vdsm_stop"]
