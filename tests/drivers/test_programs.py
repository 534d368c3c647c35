"""Programs run for one call: they end, whatever they do, and leave nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from drivers.errors import Failed, NotResponding
from drivers.programs import MOST_OUTPUT, run
from tests.until import until

SH = "/bin/sh"


def sh(
    text: str, *, timeout: float = 60, data: bytes = b"", env: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    ran = run([SH, "-c", text], timeout=timeout, data=data, env=env)
    return ran.code, ran.out, ran.err


def test_output_input_and_status_are_its_own() -> None:
    assert sh("cat; echo problem >&2; exit 3", data=b"given") == (3, b"given", b"problem\n")
    assert sh("kill -9 $$")[0] == -signal.SIGKILL


def test_an_error_says_its_last_line() -> None:
    assert run([SH, "-c", "printf 'one\\ntwo\\n\\n' >&2; exit 1"], timeout=60).reason() == "two"
    assert run([SH, "-c", "exit 7"], timeout=60).reason() == "exit status 7"


def test_it_gets_an_empty_mask_no_descriptor_and_not_what_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/somewhere")
    leak = os.open("/dev/null", os.O_RDONLY)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        shown = "grep SigBlk /proc/self/status; echo ${NOTIFY_SOCKET:-none}"
        _, out, _ = sh(f"for fd in /proc/$$/fd/*; do echo ${{fd##*/}}; done; {shown}")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.close(leak)
    words = out.decode().split()
    assert {"0", "1", "2"} <= set(words) and str(leak) not in words
    assert words[words.index("SigBlk:") + 1] == "0" * 16
    assert words[-1] == "none"


def test_output_without_end_is_cut(tmp_path: Path) -> None:
    code, out, _ = sh("head -c 5000000 /dev/zero")
    assert code == 0 and len(out) == MOST_OUTPUT


def test_a_program_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    with pytest.raises(NotResponding, match="did not end"):
        sh(f"sleep 1000 & echo $$ $! > {told}; wait", timeout=1)
    pids = told.read_text().split()
    assert len(pids) == 2
    until(lambda: not any(_runs(pid) for pid in pids), 60, "both to be gone")


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    code, out, _ = sh("sleep 1000 & echo $!")
    os.kill(int(out), signal.SIGKILL)
    assert code == 0


def test_one_that_cannot_be_started_says_so() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Failed, match="/no/such/program"):
        run(["/no/such/program"], timeout=60)
    assert len(os.listdir("/proc/self/fd")) == len(before)
