"""Fixtures: a real daemon in a place of its own, and the demo guest. What a test starts here is gone when it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.running import Running, Stage

ROOT = Path(__file__).parent.parent
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
