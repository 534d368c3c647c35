"""Fixtures: stands for the driver on a hypervisor in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.vm.stand import Stand

VM = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Give a function that starts a stand, all in one place; what it starts is ended."""
    stands: list[Stand] = []

    def start(*args: Any, **how: Any) -> Stand:
        stands.append(Stand(tmp_path, *args, **how))
        return stands[-1]

    yield start
    for stand in stands:
        if stand.thread.is_alive():
            stand.stop()


@pytest.fixture
def stand(build: Callable[..., Stand]) -> Stand:
    """Give a driver that has nothing to do yet."""
    return build()
