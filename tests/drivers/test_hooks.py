"""Hooks: what scripts are given, what they may change, and what their failures do."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from drivers.hooks import JSON, POINTS, XML, HookFailed, Hooks


class Folder:
    """A folder of hooks, and what the daemon would note of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[dict[str, Any]] = []
        self.hooks = Hooks(
            str(path), note=lambda name, **fields: self.notes.append({"name": name, **fields}), timeout=60
        )

    def add(self, point: str, name: str, body: str, mode: int = 0o755) -> Path:
        path = self.path / point / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(mode)
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_there_are_as_many_points_as_the_api_has() -> None:
    assert len(POINTS) == 59
    assert POINTS["before_vm_start"] == XML and POINTS["after_get_caps"] == JSON


def test_without_scripts_data_come_back_as_they_were(folder: Folder, tmp_path: Path) -> None:
    assert folder.hooks.run("before_vm_start", "<domain/>") == "<domain/>"
    assert Hooks(str(tmp_path / "none")).run("before_vm_start", "<domain/>") == "<domain/>"
    value = {"a": 1}
    assert folder.hooks.run_json("after_get_caps", value) is value


def test_scripts_run_in_the_order_of_their_names_and_pass_data_on(folder: Folder) -> None:
    folder.add("before_vm_start", "20_second", 'printf "%s second" "$(cat $_hook_domxml)" > $_hook_domxml')
    folder.add("before_vm_start", "10_first", 'printf "%s first" "$(cat $_hook_domxml)" > $_hook_domxml')
    folder.add("before_vm_start", "15_not_executable", "exit 1", mode=0o644)
    (folder.path / "before_vm_start" / "30_folder").mkdir()
    assert folder.hooks.run("before_vm_start", "xml") == "xml first second"


def test_a_script_may_put_another_file_in_place(folder: Folder) -> None:
    folder.add("before_vm_start", "one", "echo new > $_hook_domxml.n && mv $_hook_domxml.n $_hook_domxml")
    assert folder.hooks.run("before_vm_start", "old") == "new\n"


def test_the_environment_has_properties_and_the_machines_win(folder: Folder) -> None:
    folder.add("before_nic_hotplug", "one", 'echo "$vmId $colour $size ${FROM_SNAPSHOT:-no}" > $_hook_domxml')
    got = folder.hooks.run(
        "before_nic_hotplug",
        vm_id="the-id",
        custom={"colour": "red", "bad=name": "x", "nul": "a\0b"},
        device={"colour": "blue", "size": "3"},
        extra={"FROM_SNAPSHOT": "true"},
    )
    assert got == "the-id red 3 true\n"


def test_it_is_known_around_what_there_are_scripts(folder: Folder) -> None:
    hooks = Hooks(str(folder.path / "none"))
    assert not hooks.around("get_stats")
    assert not folder.hooks.around("get_stats")
    script = folder.add("after_get_stats", "one", "true")
    for age in (0, 3600):  # seconds that the folder has not changed for
        then = time.time() - age
        os.utime(folder.path, (then, then))
        for _ in range(2):
            assert folder.hooks.around("get_stats")
            assert not folder.hooks.around("get_caps")
    folder.add("before_get_caps", "one", "true")
    assert folder.hooks.around("get_caps")
    script.unlink()
    assert not folder.hooks.around("get_stats")


def test_json_goes_in_and_out(folder: Folder) -> None:
    folder.add("after_get_vm_stats", "one", """sed -i 's/"Up"/"Down"/' $_hook_json""")
    assert folder.hooks.run_json("after_get_vm_stats", [{"status": "Up", "n": 1}]) == [{"status": "Down", "n": 1}]


def test_nonsense_instead_of_json_is_ignored(folder: Folder) -> None:
    folder.add("after_get_vm_stats", "one", "echo '{' > $_hook_json")
    assert folder.hooks.run_json("after_get_vm_stats", [1]) == [1]


@pytest.mark.parametrize(("code", "others"), [(1, True), (2, False), (3, True), (77, True)])
def test_a_failure_before_forbids_it_and_two_stops_the_rest(folder: Folder, code: int, others: bool) -> None:
    folder.add("before_vm_start", "1", f"echo because >&2; exit {code}")
    folder.add("before_vm_start", "2", f"touch {folder.path}/ran")
    with pytest.raises(HookFailed, match="before_vm_start failed: 1: because"):
        folder.hooks.run("before_vm_start", "xml")
    assert (folder.path / "ran").exists() is others
    assert folder.notes == [{"name": "hook.failed", "point": "before_vm_start", "reason": "1: because"}]


@pytest.mark.parametrize("point", ["after_vm_start", "before_vm_destroy", "before_vm_set_ticket", "before_vdsm_start"])
def test_what_cannot_be_forbidden_goes_on_with_what_it_had(folder: Folder, point: str) -> None:
    folder.add(point, "1", "echo other > $_hook_domxml; exit 1")
    assert folder.hooks.run(point, "xml") == "xml"


def test_a_script_that_hangs_is_a_failure(folder: Folder) -> None:
    folder.add("before_vm_start", "1", "exec sleep 1000")
    hooks = Hooks(str(folder.path), timeout=0.5)
    with pytest.raises(HookFailed, match="did not end"):
        hooks.run("before_vm_start", "xml")


def test_a_script_that_cannot_be_started_is_a_failure(folder: Folder) -> None:
    folder.add("before_vm_start", "1", "").write_text("#!/no/such/shell\n")
    with pytest.raises(HookFailed, match="starting"):
        folder.hooks.run("before_vm_start", "xml")


def test_the_listing_has_every_script_with_its_sum(folder: Folder) -> None:
    script = folder.add("after_vm_start", "one", "true")
    folder.add("no_such_point", "one", "true")
    md5 = hashlib.md5(script.read_bytes()).hexdigest()
    assert folder.hooks.listing() == {"after_vm_start": {"one": {"md5": md5}}}
