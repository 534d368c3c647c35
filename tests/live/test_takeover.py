"""A new release that cannot take over becomes the previous one again, with everything as it was left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.test_lifecycle import append, create, environment, outcome, release, status_of
from tests.running import Running, Stage
from tests.until import until

Start = Callable[..., Running]

pytestmark = pytest.mark.slow

__all__ = ["release"]  # a fixture


FAULTS: dict[str, tuple[str, str, str]] = {
    "it fails at import": ("vdsmd/lifecycle.py", "raise ImportError('half an upgrade')", "half an upgrade"),
    "a dependency is gone": ("vdsmd/daemon.py", "import no_such_library", "no_such_library"),
    "it has no memory": ("state/handoff.py", "raise MemoryError('none left')", "none left"),
    "it hangs": ("vdsmd/service.py", "import signal\n    while True: signal.pause()", "it did not serve in time"),
    "an owner cannot take over": (
        "drivers/vm/driver.py",
        "def fail(self, record): raise ValueError('what is this?')\n    VmDriver.restore = fail",
        "what is this?",
    ),
}


def kept(daemon: Running) -> bool:
    """Say whether the running release has been kept: from then on there is a way back."""
    return any(path.suffix != ".new" for path in (daemon.lib_dir / "kept").glob("*"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_fails_after_the_exec_is_undone(daemon: Start, release: Path, fault: str) -> None:
    where, what, told = FAULTS[fault]
    config = {"vars": {"takeover_timeout": 0 if "hangs" in fault else 120}}
    vdsmd = daemon(env={"PYTHONPATH": str(release)}, config=config)
    vm_id = create(vdsmd)
    until(lambda: kept(vdsmd), 60)
    before = environment(vdsmd.pid)
    good = (release / where).read_text()
    # What no rehearsal can see: it fails in the daemon itself only.
    append(release / where, 'import sys\nif "--rehearse" not in sys.argv:\n    ' + what)
    number = outcome(vdsmd)["number"]
    os.kill(vdsmd.pid, signal.SIGHUP)
    got = until(lambda: (o := outcome(vdsmd))["number"] > number and o["state"] == "refused" and o, 120, "the way back")
    assert "the previous one serves again" in got["reason"] and told in got["reason"]
    assert status_of(vdsmd, vm_id) == "Up" and vdsmd.alive()
    assert vdsmd.must("vdsmd.status")["info"]["degraded"] == {}
    second = create(vdsmd)
    (release / where).write_text(good)
    generation = vdsmd.generation
    assert vdsmd.reexec() == generation + 1
    assert {status_of(vdsmd, vm_id), status_of(vdsmd, second)} == {"Up"}
    assert environment(vdsmd.pid) == before


def test_a_release_with_nowhere_to_go_back_to_degrades_only_the_owner(daemon: Start, release: Path) -> None:
    vdsmd = daemon(env={"PYTHONPATH": str(release)})
    vm_id = create(vdsmd)
    until(lambda: kept(vdsmd), 60)
    # Both the new release and the previous one fail on this owner.
    for place in (release, *(vdsmd.lib_dir / "kept").iterdir()):
        append(
            place / "vdsmd/host/facts.py",
            "import sys\nif '--rehearse' not in sys.argv:\n"
            "    def fail(self, record): raise ValueError('nobody can read this')\n    HostFacts.restore = fail",
        )
    os.kill(vdsmd.pid, signal.SIGHUP)
    until(lambda: vdsmd.generation == 1, 120)
    status = until(lambda: vdsmd.must("vdsmd.status")["info"], 60)
    assert "nobody can read this" in status["degraded"]["host"]
    assert status_of(vdsmd, vm_id) == "Up" and vdsmd.must("getVdsStats")["info"]["generationID"]


def test_two_releases_that_cannot_start_end_it_and_the_next_start_recovers(
    daemon: Start, release: Path, stage: Stage
) -> None:
    """Going back happens once: there is no loop of failures."""
    vdsmd = daemon(env={"PYTHONPATH": str(release)})
    until(lambda: kept(vdsmd), 60)
    good = (release / "vdsmd/lifecycle.py").read_text()
    for place in (release, *(vdsmd.lib_dir / "kept").iterdir()):
        append(
            place / "vdsmd/lifecycle.py",
            'import sys\nif "--rehearse" not in sys.argv:\n    raise RuntimeError("no way")',
        )
    os.kill(vdsmd.pid, signal.SIGHUP)
    assert vdsmd.process.wait(120) == 1
    assert vdsmd.output.read_text().count("RuntimeError: no way") >= 2
    (release / "vdsmd/lifecycle.py").write_text(good)
    again = stage.start(env={"PYTHONPATH": str(release)}, again=vdsmd)
    until(lambda: again.call("ping")["status"]["code"] == 0, 120)
    assert again.generation == 0


def test_a_release_that_changed_under_the_daemon_is_not_kept(daemon: Start, release: Path, stage: Stage) -> None:
    vdsmd = daemon(env={"PYTHONPATH": str(release)})
    until(lambda: kept(vdsmd), 60)
    first = sorted((vdsmd.lib_dir / "kept").iterdir())
    append(release / "vdsmd/loop.py", "# another release\n")
    vdsmd.reexec()
    until(lambda: sorted((vdsmd.lib_dir / "kept").iterdir()) not in ([], first), 60, "the new release to be kept")
