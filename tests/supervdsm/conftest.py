"""Fixtures: helpers that are gone when the test ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from supervdsm.client import Client
from tests.conftest import OUTCOME
from tests.supervdsm.helper import Helper


@pytest.fixture
def helper(request: pytest.FixtureRequest) -> Iterator[Callable[..., Helper]]:
    """Give a function that starts a helper: helper(service=False, options={"supervdsm": {...}}, module="supervdsm")."""
    if os.geteuid() != 0:
        pytest.skip("only root can start the helper")
    started: list[Helper] = []

    def start(**given: object) -> Helper:
        made = Helper(**given)  # type: ignore[arg-type]
        started.append(made)
        return made

    try:
        yield start
    finally:
        for made in started:
            if request.node.stash.get(OUTCOME, False):
                print(f"== {made.config}\n{made.log()}")
            made.close()


@pytest.fixture
def root(helper: Callable[..., Helper]) -> Client:
    """Give the client of a real helper with the real actions, over a socket pair."""
    return helper().client
