"""A copy through re-execs and a SIGKILL of a real daemon that is the SPM; `scripts/bench storage --endurance`, in short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.benchmarks.endurance import endure, slowly
from scripts.benchmarks.lab import Lab
from scripts.benchmarks.place import pool

MIB = 128


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts over qemu-img, for the daemon alone, which takes root")
def test_a_copy_through_reexecs_and_a_kill(tmp_path: Path) -> None:
    with Lab(uri="test:///default", launcher=slowly(tmp_path, MIB, 10.0)) as lab, pool(lab, tmp_path) as place:
        seen = endure(place, MIB, re_execs=5)
    assert seen["re_execs"] == 5
    assert seen["qemu_img_processes"] == [1, 1], seen
    assert seen["progress_went_back"] == 0 and seen["answers_lost"] == 0, seen
    assert 0 < seen["kill"]["at_percent"] < 100
    assert (seen["kill"]["role_then"], seen["kill"]["task_then"]) == ("Free", "running")
    assert seen["same_bytes"] and seen["legality"] == "LEGAL" and seen["left_over"] == []
