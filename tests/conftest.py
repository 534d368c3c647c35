"""Fixtures: a real daemon in a place of its own, and the demo guest. What a test starts here is gone when it ends."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.running import Running, Stage

ROOT = Path(__file__).parent.parent
LAB = Path("/etc/vdsmd-lab")
"""In a virtual host of the lab: how many of them there are."""
PR_SET_CHILD_SUBREAPER = 36
OUTCOME = pytest.StashKey[bool]()


class Guest(NamedTuple):
    """The demo guest: it writes `demo guest ready`, then `tick 1`, `tick 2` ... ten times a second."""

    kernel: str
    initramfs: str


@pytest.fixture(scope="session")
def guest() -> Guest:
    """Return the demo guest's files, made once for all runs."""
    made = subprocess.run([ROOT / "scripts" / "guest"], capture_output=True, text=True, timeout=280, check=False)
    assert made.returncode == 0, made.stderr
    return Guest(*made.stdout.split())


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Give a place for daemons. At the end all of them and their guests are gone, or the test fails.

    When the test has failed, what the daemons logged is printed.
    """
    stage = Stage()
    try:
        yield stage
    finally:
        failed = request.node.stash.get(OUTCOME, False)
        stage.clear(tell=failed)


@pytest.fixture
def daemon(stage: Stage) -> Callable[..., Running]:
    """Give a function that starts a daemon and returns it when it serves.

    daemon(uri="embed" or "test:///default" or any, config={"section": {"option": value}}, env={...})
    """
    return stage.start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[OUTCOME] = True
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `lab` runs in a virtual host only, and where it needs several, with so many."""
    hosts = int(LAB.read_text(encoding="ascii")) if LAB.exists() else 0
    lab = [(item, marker) for item in items if (marker := item.get_closest_marker("lab"))]
    if not hosts and lab:
        config.hook.pytest_deselected(items=[item for item, _ in lab])
        items[:] = [item for item in items if not item.get_closest_marker("lab")]
    for item, marker in lab:
        if hosts < (wanted := marker.kwargs.get("hosts", 1)):
            item.add_marker(pytest.mark.skip(reason=f"needs scripts/lab run --hosts {wanted}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Be nobody's new parent: libvirt inside a test's own process makes it that of orphans, which then stay as zombies."""
    if "drivers/vm" not in str(item.path):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
