"""The leases of volumes, on a host with sanlock: each is a resource that its guests could hold, and nobody holds it yet."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.test_pools import BLANK, IMAGE, ONE, POOL, VOLUME, done, make_pool, start_spm
from tests.running import Running, Stage
from tests.sanlocks import PROGRAM, Sanlock, needs_sanlock

pytestmark = [needs_sanlock, pytest.mark.slow]


@pytest.fixture
def running(stage: Stage) -> Iterator[Running]:
    sanlock = Sanlock(stage.base / "sanlock", "one")
    config = {"irs": {"sd_health_check_delay": 0.5, "sanlock_io_timeout": 1, "qcow2_compat": "1.1"}}
    yield stage.start("test:///default", config=config, env=sanlock.env)
    sanlock.end()


def lease(file: Path) -> dict[str, str]:
    """Return what stands in the file of a lease; timestamp "0": it is free."""
    assert PROGRAM is not None
    argv = [PROGRAM, "direct", "read_leader", "-r", f"{ONE}:{VOLUME}:{file}:0"]
    told = subprocess.run(argv, check=True, capture_output=True, text=True)
    return {words[0]: words[1] for line in told.stdout.splitlines() if len(words := line.split(maxsplit=1)) == 2}


def test_a_new_volume_has_a_lease_of_its_own(running: Running, stage: Stage) -> None:
    data = stage.base / "data"
    data.mkdir()
    make_pool(running, data)
    start_spm(running)
    done(running, "createVolume", ONE, POOL, IMAGE, "1048576", 4, 2, 2, VOLUME, "", BLANK, BLANK)
    volume = Path(data / ONE / "images" / IMAGE / VOLUME)
    told = lease(volume.with_suffix(".lease"))
    assert (told["resource_name"], told["space_name"], told["timestamp"]) == (VOLUME, ONE, "0")
    assert volume.with_suffix(".lease").stat().st_size == 1 << 20
    # What is not about leases, and needs the whole daemon as this does: its configuration reaches the tasks.
    assert int.from_bytes(volume.read_bytes()[4:8], "big") == 3
    done(running, "deleteImage", ONE, POOL, IMAGE)
    assert not list((data / ONE / "images").iterdir())
