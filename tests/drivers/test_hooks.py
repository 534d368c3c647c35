"""Hooks: what scripts are given, what they may change, and what their failures do."""

from __future__ import annotations

import ast
import hashlib
import os
import signal
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


@pytest.mark.parametrize("point", sorted(set(POINTS) - {"before_ifcfg_write", "after_ifcfg_write"}))
def test_every_point_is_run_somewhere(point: str) -> None:
    """By its own name, or by what it is before or after."""
    assert {point, point.partition("_")[2].removesuffix("_fail")} & WORDS


def words() -> set[str]:
    """Return all text that stands in quotes in the code that runs hooks."""
    root = Path(__file__).parent.parent.parent
    paths = [
        path for folder in ("drivers", "vdsmd") for path in (root / folder).rglob("*.py") if path.name != "hooks.py"
    ]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


WORDS = words()


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


def test_no_property_says_which_code_a_script_runs(folder: Folder) -> None:
    folder.add("before_vm_start", "one", 'echo "$PATH|$LD_PRELOAD|$BASH_ENV|$PYTHONPATH|$path" > $_hook_domxml')
    names = ("PATH", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH", "path")
    left = folder.hooks.run("before_vm_start", "", custom=dict.fromkeys(names, "/evil"), device={"LD_AUDIT": "/evil"})
    assert left.count("/evil") == 1 and left.endswith("|/evil\n")


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


@pytest.mark.parametrize("left", ["[1, null]", "[9999999999]", '{"a": 1}', "7", '[{"a": null}]'])
def test_what_cannot_be_answered_is_ignored(folder: Folder, left: str) -> None:
    folder.add("after_get_vm_stats", "one", f"echo '{left}' > $_hook_json")
    assert folder.hooks.run_json("after_get_vm_stats", [1]) == [1]


@pytest.mark.parametrize(
    "body",
    [
        "rm $_hook_domxml",
        "printf '\\377' > $_hook_domxml",
        "rm $_hook_domxml; mkfifo $_hook_domxml",
        "rm $_hook_domxml; ln -s /dev/zero $_hook_domxml",
        "rm $_hook_domxml; mkdir $_hook_domxml; touch $_hook_domxml/x",
        "truncate -s 1G $_hook_domxml",
    ],
)
def test_what_cannot_be_read_is_a_failure(folder: Folder, body: str) -> None:
    for point in ("before_vm_start", "after_vm_start"):
        folder.add(point, "one", body)
    with pytest.raises(HookFailed, match="what was left"):
        folder.hooks.run("before_vm_start", "xml")
    assert folder.hooks.run("after_vm_start", "xml") == "xml"


def test_without_room_for_the_data_a_script_has_failed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for point in ("before_vm_start", "after_vm_start"):
        folder.add(point, "one", "")
    monkeypatch.setattr("tempfile.tempdir", str(folder.path / "none"))
    with pytest.raises(HookFailed, match="none"):
        folder.hooks.run("before_vm_start", "xml")
    assert folder.hooks.run("after_vm_start", "xml") == "xml"


def test_much_output_and_a_child_left_behind_hold_nothing_up(folder: Folder) -> None:
    pid = folder.path / "pid"
    folder.add(
        "before_vm_start", "one", f"yes | head -c 5000000; yes | head -c 5000000 >&2; sleep 600 & echo $! > {pid}"
    )
    try:
        assert folder.hooks.run("before_vm_start", "xml") == "xml"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_scripts_find_modules_for_them(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    folder.add("before_vm_start", "one", 'echo "$PYTHONPATH" > $_hook_domxml')
    assert folder.hooks.run("before_vm_start", "xml") == "/ours:/usr/share/vdsm\n"


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
    folder.add("before_ifcfg_write", "off", "true", mode=0o644)
    md5 = hashlib.md5(script.read_bytes()).hexdigest()
    assert folder.hooks.listing() == {"after_vm_start": {"one": {"md5": md5}}}


def test_every_point_is_listed(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    for point in POINTS:
        folder.add(point, "one", "true")
    for _ in range(2):
        assert folder.hooks.listing().keys() == POINTS.keys()
    assert caplog.text.count("before_ifcfg_write") == 1  # which nothing runs
