"""Tests that are marked `netns` run in a network namespace of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drivers.network.namespace import inside


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "netns: in a network namespace of its own")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("netns") is None:
        return None
    given: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    inside(lambda: pyfuncitem.obj(**given))
    return True
