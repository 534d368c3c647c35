"""How long a migration may take, from figures."""

from __future__ import annotations

import pytest

from drivers.vm.contract import Settings
from drivers.vm.travel.limits import Mark, advanced, downtime, exceeded

SETTINGS = Settings(
    migration_downtime_steps=5,
    migration_downtime_delay=100,
    migration_progress_timeout=240,
    migration_max_time_per_gib_mem=64,
)
NEVER = Settings(migration_progress_timeout=0, migration_max_time_per_gib_mem=0, migration_downtime_delay=0)


@pytest.mark.parametrize(
    ("passed", "allowed"), [(0, 100), (19, 100), (20, 200), (41, 300), (79, 400), (80, 500), (1e6, 500), (-5, 100)]
)
def test_the_downtime_grows_in_steps(passed: float, allowed: int) -> None:
    assert downtime(SETTINGS, most=500, mem_mib=512, begun=1000, now=1000 + passed) == allowed


def test_more_memory_gets_more_time() -> None:
    assert downtime(SETTINGS, most=500, mem_mib=4096, begun=0, now=80) == 200
    assert not exceeded(Mark(1, 250), SETTINGS, mem_mib=4096, begun=0, now=255)
    assert "longer than 256 seconds" in exceeded(Mark(1, 250), SETTINGS, mem_mib=4096, begun=0, now=257)


@pytest.mark.parametrize(("most", "allowed"), [(5, 5), (10, 10), (20, 10), (0, 0), (1000, 200)])
def test_no_downtime_is_too_short_to_end_with(most: int, allowed: int) -> None:
    assert downtime(SETTINGS, most=most, mem_mib=512, begun=0, now=0) == allowed


def test_without_a_delay_all_is_allowed_at_once() -> None:
    assert downtime(NEVER, most=500, mem_mib=512, begun=0, now=0) == 500


def test_one_that_comes_no_nearer_is_stuck() -> None:
    mark = advanced(None, 0, 0, now=0)
    mark = advanced(mark, 100, 200, now=5)
    assert mark == Mark(100, 5)
    assert advanced(mark, 100, 300, now=30) == mark == advanced(mark, 150, 400, now=40)
    long = Settings(migration_progress_timeout=20, migration_max_time_per_gib_mem=0)
    assert not exceeded(mark, long, mem_mib=64, begun=0, now=25)
    assert "stuck" in exceeded(mark, long, mem_mib=64, begun=0, now=26)
    assert advanced(mark, 99, 400, now=50) == Mark(99, 50)


def test_without_limits_it_may_take_for_ever() -> None:
    assert not exceeded(Mark(1, 0), NEVER, mem_mib=64, begun=0, now=1e9)
