"""Fixtures: a driver in a place whose path is short enough for sockets, and guests in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.vm.agents.inside import Inside, Libvirt, Place
from tests.drivers.vm.conftest import VM


@pytest.fixture
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="va-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def libvirt() -> Libvirt:
    return Libvirt()


@pytest.fixture
def start(base: Path, libvirt: Libvirt) -> Iterator[Callable[..., Place]]:
    """Give a function that starts a driver, all in one place; what it starts is ended."""
    places: list[Place] = []

    def begin(**how: Any) -> Place:
        places.append(Place(base, libvirt, **how))
        return places[-1]

    yield begin
    for place in places:
        if place.thread.is_alive():
            place.stop()
        for name in place.host.fds.names() if place is places[-1] else []:
            place.host.fds.drop(name)


@pytest.fixture
def inside(base: Path) -> Iterator[Inside]:
    """Give the inside of the guest `VM`, to which nobody is connected yet."""
    (base / "run").mkdir(exist_ok=True)
    guest = Inside(str(base / "run"), VM)
    yield guest
    guest.close()


@pytest.fixture
def place(start: Callable[..., Place], inside: Inside) -> Place:
    """Give a driver whose machine `VM` runs, and is connected to `inside`."""
    place = start()
    place.run(VM)
    inside.accept()
    inside.hears("refresh")
    return place
