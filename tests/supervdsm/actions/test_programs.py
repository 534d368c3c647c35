"""Programs run as root: their environment, their output, their end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from supervdsm.errors import Failed, TimedOut, Unsupported
from supervdsm.programs import MOST_OUTPUT, find, run
from tests.until import until


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_says_how_it_ended_and_what_it_said(tmp_path: Path) -> None:
    ended = run(script(tmp_path, 'echo "got $1"; cat; echo bad >&2; exit 3'), "a b;c", stdin="told\n")
    assert ended.code == 3
    assert ended.output == "got a b;c\ntold\nbad\n"
    assert ended.last_line() == "bad"


def test_nothing_of_ours_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LD_PRELOAD", "")
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        ended = run(script(tmp_path, "env; pwd; ls /proc/self/fd; grep SigBlk /proc/self/status; umask"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(leak)
    lines = ended.output.splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names <= {"PATH", "LC_ALL", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}
    assert f"{leak}" not in lines
    assert "SigBlk:\t0000000000000000" in lines
    assert lines[-1] == "0022"


def test_too_much_output_is_cut_and_too_much_input_refused(tmp_path: Path) -> None:
    ended = run(script(tmp_path, "head -c 3000000 /dev/zero; exit 4"), timeout=120)
    assert (ended.code, len(ended.output)) == (4, MOST_OUTPUT)
    with pytest.raises(Failed):
        run(script(tmp_path, "true"), stdin="x" * 100000)


def test_one_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    path = script(tmp_path, f"sleep 600 & echo $! $$ > {mark}.new; mv {mark}.new {mark}; wait")
    for patience in (1, 10, 100):  # on a busy machine it may not have come to anything in the first second
        with pytest.raises(TimedOut, match="program"):
            run(path, timeout=patience)
        if mark.exists():
            break
    pids = mark.read_text().split()
    until(lambda: not [pid for pid in pids if _runs(pid)], 60, "all of it to be gone")


def _runs(pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_it_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """A file system's server keeps the outputs of the program that started it."""
    mark = tmp_path / "pid"
    ended = run(script(tmp_path, f"setsid sleep 600 & echo $! > {mark}; echo done"), timeout=60)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    assert (ended.code, ended.output) == (0, "done\n")


def test_one_that_does_not_listen_is_told_in_vain(tmp_path: Path) -> None:
    assert run(script(tmp_path, "exec <&-; exit 7"), stdin="x" * 9000).code == 7


def test_programs_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "mount"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("mount") in ("/usr/bin/mount", "/bin/mount")
    with pytest.raises(Unsupported, match="not-there"):
        find("not-there")
    with pytest.raises(Unsupported):
        run(str(tmp_path / "nothing"))
