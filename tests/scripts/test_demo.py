"""scripts/run: what its table counts as wrong, and the whole of it with a real guest."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.demo.outside import Console, wrong_lines
from scripts.demo.show import Row, Seen, table, verdict

ROOT = Path(__file__).parent.parent.parent
ROW = Row(
    generation=0, run_as="vdsm", daemon_pid=10, qemu_pid=20, qemu_started="12:00:00.50", counter_before=1, counter_after=30,
    lines_lost=0, descriptors=30, pause_ms=2.4, calls=100, failed=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("ticks", "wrong"),
    [([4, 5, 6, 7, 8], 0), ([5, 7], 1), ([7], 2), ([5, 6, 6, 7], 1), ([5, 7, 6], 1), ([], 3)],
)
def test_lines_that_are_lost_doubled_or_swapped_count(ticks: list[int], wrong: int) -> None:
    assert wrong_lines(ticks, 5, 7) == wrong


def test_only_whole_lines_of_the_console_count(tmp_path: Path) -> None:
    log = tmp_path / "console"
    assert Console(log).last() == 0
    log.write_bytes(b"demo guest ready\r\ntick 1\r\ntick 2\ntick 34")
    assert Console(log).ticks() == [1, 2]


def seen(start: int | None = 5, errors: list[str] | None = None, **changes: Any) -> Seen:
    return Seen(ROW._replace(**changes), start, errors or [])


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (seen(start=6), "QEMU"),
        (seen(start=None), "QEMU"),
        (seen(qemu_pid=21), "QEMU"),
        (seen(daemon_pid=11), "vdsmd"),
        (seen(lines_lost=1), "console"),
        (seen(descriptors=31), "descriptors"),
        (seen(errors=["ping: connection refused"]), "refused"),
    ],
)
def test_whatever_does_not_hold_is_said(last: Seen, word: str) -> None:
    assert verdict([seen(), seen(), seen()]) == []
    (reason,) = verdict([seen(), seen(), last])
    assert word in reason


def test_the_table_has_a_column_for_each_thing_seen() -> None:
    lines = list(table([ROW, ROW._replace(pause_ms=61.6, generation=1)]))
    assert lines[1].split() == [name.split("_")[-1] for name in Row._fields]
    assert "62" in lines[3].split()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "run", *arguments], capture_output=True, text=True, check=False)


def test_help_needs_nothing_installed() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert "--once" in shown.stdout
    assert "set -eu" not in shown.stdout


def test_an_unknown_option_is_refused() -> None:
    assert run("--twice").returncode == 2


def test_a_place_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    refused = run("--once", "--dir", str(tmp_path / ("deep" * 20)))
    assert refused.returncode == 2
    assert "too long" in refused.stderr


@pytest.mark.slow
def test_the_whole_demonstration_holds() -> None:
    shown = run("--once")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "All held" in shown.stdout
