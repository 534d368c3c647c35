"""Calls to a real helper: values, errors, descriptors, slow actions, and what happens when it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from supervdsm import wire
from supervdsm.client import (
    Busy,
    Client,
    Failed,
    HelperGone,
    Invalid,
    NoHelper,
    NotAllowed,
    NotFound,
    TimedOut,
    Without,
)
from tests.supervdsm.helper import PATIENCE, Helper
from tests.until import until

pytestmark = pytest.mark.slow

SERVER = "tests.supervdsm.server"
Start = Callable[..., Helper]


@pytest.fixture
def one(helper: Start) -> Helper:
    return helper(module=SERVER)


@pytest.mark.parametrize("value", ["", "a\nb\té☃", 0, -(2**53), 1.5, True, None, ["a"], {"a": "b"}])
def test_a_value_comes_back_as_it_is(one: Helper, value: object) -> None:
    assert one.client.call("test.echo", value=value) == value


def test_the_real_helper_answers(root: Client) -> None:
    assert root.call("ping") == "pong"


def test_an_action_knows_whom_it_works_for(helper: Start) -> None:
    told = helper(module=SERVER, service=True).client.call("test.whose")
    assert told["user"] == "nobody" and told["uid"] == 65534
    assert told["run_dir"].startswith("/tmp/sv-") and told["run_dir"].endswith("/run")


@pytest.mark.parametrize("action", ["test.fail", "test.slow-fail"])
def test_an_error_comes_back_as_its_own_type(one: Helper, action: str) -> None:
    with pytest.raises(NotFound) as caught:
        one.client.call(action, text="no such thing")
    assert str(caught.value) == "no such thing"
    assert "raise NotFound(text)" in caught.value.remote_traceback
    assert one.client.call("ping") == "pong"


def test_a_surprise_is_a_failure_of_that_call_alone(one: Helper) -> None:
    with pytest.raises(Failed, match="ZeroDivisionError: a surprise"):
        one.client.call("test.surprise")
    with pytest.raises(Failed, match="not JSON serializable"):
        one.client.call("test.unsendable")
    assert one.client.call("ping") == "pong"
    assert one.process.poll() is None


@pytest.mark.parametrize(
    ("action", "arguments", "complaint"),
    [
        ("no.such", {}, "there is no action 'no.such'"),
        ("test.echo", {}, "missing value"),
        ("test.echo", {"value": 1, "other": 2}, "unknown other"),
        ("test.fail", {"text": 1}, "text: expected"),
        ("test.fail", {"text": "a\0b"}, "text: expected"),
        ("test.fail", {"text": ["a"]}, "text: expected"),
        ("test.fail", {"text": "x" * 70000}, "65536 are the most"),
        ("test.fail", {"text": object()}, "cannot be sent"),
        ("test.fail", {"text": "\ud800"}, "cannot be sent"),
    ],
)
def test_what_makes_no_sense_is_refused(one: Helper, action: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        one.client.call(action, **arguments)
    assert one.client.call("ping") == "pong"


def test_a_call_leaves_one_line_in_the_log(one: Helper) -> None:
    with pytest.raises(NotFound):
        one.client.call("test.fail", text="two\nlines " + "x" * 1000)
    one.client.call("test.secret", password="hush", name="me")
    until(lambda: len(_audit(one)) == 2, PATIENCE)
    lines = _audit(one)
    assert f"caller=vdsmd pid={os.getpid()} action=test.fail" in lines[0]
    assert "two\\nlines xxx" in lines[0] and "outcome=NotFound" in lines[0] and len(lines[0]) < 700
    assert "arguments=[password=*** name='me'] outcome=ok ms=" in lines[1]
    assert "hush" not in one.log()
    until(lambda: "password=***" in (one.log_dir / "supervdsm.log").read_text(), PATIENCE)


@pytest.mark.parametrize("size", [10, 65_000])
def test_a_long_answer_arrives(one: Helper, size: int) -> None:
    assert one.client.call("test.long", size=size) == "x" * size


def test_a_too_long_answer_is_an_error(one: Helper) -> None:
    with pytest.raises(Failed, match="too large"):
        one.client.call("test.long", size=66_000)
    assert one.client.call("ping") == "pong"


@pytest.mark.parametrize("action", ["test.open", "test.slow-open"])
def test_a_descriptor_arrives_and_nobody_inherits_it(one: Helper, action: str) -> None:
    fd = one.client.call(action, path=str(one.config))
    try:
        assert not os.get_inheritable(fd)
        assert os.pread(fd, 4096, 0) == one.config.read_bytes()
    finally:
        os.close(fd)


def test_calls_leave_no_descriptor_behind(one: Helper) -> None:
    def use() -> None:
        os.close(one.client.call("test.open", path="/dev/null"))
        os.close(one.client.call("test.slow-open", path="/dev/null"))
        with pytest.raises(NotFound):
            one.client.call("test.slow-fail", text="")

    use()
    theirs, ours = one.client.call("test.descriptors"), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        use()
    assert one.client.call("test.descriptors") == theirs
    assert len(os.listdir("/proc/self/fd")) == ours


def test_many_threads_get_their_own_answers(one: Helper) -> None:
    def call(number: int) -> bool:
        action = "test.slow-echo" if number % 10 == 0 else "test.echo"
        return bool(one.client.call(action, value=str(number)) == str(number))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(600)))


def test_a_slow_action_holds_up_no_other(one: Helper, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(one.client.call, "test.slow", seconds=3600, path=str(done))
        until(lambda: Path(f"{done}.begun").exists(), PATIENCE)
        assert one.client.call("ping") == "pong"
        os.kill(int(Path(f"{done}.begun").read_text()), signal.SIGKILL)
        with pytest.raises(Failed, match="ended without an answer"):
            slow.result(PATIENCE)
    _end_sleepers(3600)


def test_an_action_that_takes_too_long_is_ended_with_all_that_it_started(one: Helper) -> None:
    with pytest.raises(TimedOut, match="was not done within"):
        one.client.call("test.too-slow")
    until(lambda: not _sleepers(1000.25), PATIENCE, "what it started to be gone")
    assert one.client.call("ping") == "pong"


def test_the_time_of_an_action_is_that_of_a_program_that_it_runs(one: Helper) -> None:
    with pytest.raises(TimedOut, match=r"test\.too-long was not done within") as caught:
        one.client.call("test.too-long")
    assert "programs.py" in caught.value.remote_traceback, "it has cleaned up itself"
    until(lambda: not _sleepers(1000.75), PATIENCE, "the program to be gone")


def test_an_action_that_does_not_mind_its_time_is_ended(one: Helper) -> None:
    with pytest.raises(TimedOut, match=r"test\.stubborn was not done within"):
        one.client.call("test.stubborn")
    assert one.client.call("ping") == "pong"


def test_a_call_that_nobody_waits_for_is_not_begun(one: Helper, tmp_path: Path) -> None:
    late = tmp_path / "late"
    with ThreadPoolExecutor(16) as pool:
        at_work = [pool.submit(one.client.call, "test.slow", seconds=3604) for _ in range(16)]
        until(lambda: len(_sleepers(3604)) == 16, PATIENCE)
        with pytest.raises(TimedOut):
            one.client.call("test.slow", seconds=0, path=str(late), timeout=0.01)
        _end_sleepers(3604)
        assert all(call.exception(PATIENCE) for call in at_work)
    assert one.client.call("test.slow-echo", value="x") == "x"
    until(lambda: "not begun, for its caller has given up" in one.log(), PATIENCE)
    assert not late.exists() and not Path(f"{late}.begun").exists()


def test_a_slow_action_that_dies_is_an_error(one: Helper) -> None:
    with pytest.raises(Failed, match="ended without an answer"):
        one.client.call("test.slow-die")


def test_too_many_slow_calls_are_refused(one: Helper) -> None:
    with ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(one.client.call, "test.slow", seconds=3601) for _ in range(16 + 64 + 5)]
        until(lambda: sum(call.done() for call in calls) == 5, PATIENCE, "five to be refused")
        refused = [call.exception() for call in calls if call.done()]
        assert [type(error) for error in refused] == [Busy] * 5
        assert one.client.call("ping") == "pong"
        one.end(signal.SIGKILL)
        assert {type(call.exception(PATIENCE)) for call in calls} == {Busy, HelperGone}
    _end_sleepers(3601)


def test_an_action_whose_caller_went_away_is_done_to_the_end(one: Helper, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    request = json.dumps({"action": "test.wait", "arguments": {"path": str(go), "then": str(done)}}).encode()
    ours, theirs = wire.pair()
    with socket.socket(fileno=os.dup(one.client.fileno())) as main, theirs:
        wire.send(main, request, [theirs.fileno()])
    until(Path(f"{done}.begun").exists, PATIENCE)
    ours.close()
    go.touch()
    until(done.exists, PATIENCE)
    assert one.client.call("ping") == "pong"
    until(lambda: "the answer was not wanted" in one.log(), PATIENCE)


def test_without_an_answer_in_time_a_call_gives_up(one: Helper) -> None:
    one.send(signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut, match="no answer from supervdsm"):
            one.client.call("ping", timeout=0.2)
    finally:
        one.send(signal.SIGCONT)
    assert one.client.call("ping") == "pong"


def test_a_helper_that_takes_no_calls_is_given_up(one: Helper) -> None:
    one.send(signal.SIGSTOP)
    try:
        until(lambda: "takes no calls" in _time_out(one.client), PATIENCE)
    finally:
        one.send(signal.SIGCONT)
    assert one.client.call("ping") == "pong"


def test_a_helper_that_dies_during_a_call_fails_it_at_once(one: Helper) -> None:
    with pytest.raises(HelperGone):
        one.client.call("test.die")
    assert one.process.wait(PATIENCE) == -signal.SIGKILL


def test_a_stuck_helper_ends_itself_and_says_where(helper: Start) -> None:
    one = helper(module=SERVER, options={"supervdsm": {"watchdog": 3}})
    with pytest.raises(HelperGone):
        one.client.call("test.stuck")
    assert one.process.wait(PATIENCE) == -signal.SIGALRM
    assert "in stuck" in one.log()


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_a_helper_that_is_stopped_is_ended(helper: Start, before: bool) -> None:
    """It stands for one that hangs in the kernel: no handler of its own gets to run."""
    one = helper(module=SERVER, options={"supervdsm": {"watchdog": 4}})
    one.client.call("ping")
    with ThreadPoolExecutor(1) as pool:
        during = None if before else pool.submit(one.client.call, "test.slow", seconds=3605)
        if during:
            until(lambda: _sleepers(3605), PATIENCE)
        one.send(signal.SIGSTOP)
        with pytest.raises((TimedOut, HelperGone)):
            one.client.call("ping", timeout=0.2)
        with pytest.raises((HelperGone, NoHelper)):
            one.client.call("ping")
        assert during is None or type(during.exception(PATIENCE)) is HelperGone
    assert one.process.wait(PATIENCE) == -signal.SIGKILL
    _end_sleepers(3605)


@pytest.mark.slow
def test_a_helper_that_has_nothing_to_do_is_not_stuck(helper: Start) -> None:
    one = helper(module=SERVER, options={"supervdsm": {"watchdog": 5}})
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 11, PATIENCE)
    assert one.client.call("ping") == "pong"


def test_a_slow_call_ends_with_the_helper_and_its_deed_is_done(one: Helper, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(one.client.call, "test.slow", seconds=1, path=str(done))
        until(lambda: Path(f"{done}.begun").exists(), PATIENCE)
        one.end(signal.SIGKILL)
        with pytest.raises(HelperGone):
            slow.result(PATIENCE)
    assert one.client.gone
    until(done.exists, PATIENCE)


def test_a_request_that_was_never_read_ends_with_the_helper(one: Helper) -> None:
    one.send(signal.SIGSTOP)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(one.client.call, "ping") for _ in range(4)]
        one.end(signal.SIGKILL)
        errors = [call.exception(PATIENCE) for call in calls]
    assert {type(error) for error in errors} <= {HelperGone, NoHelper} and len(errors) == 4


def test_after_its_helper_has_ended_a_pair_has_none(one: Helper) -> None:
    one.client.call("ping")
    one.end(signal.SIGKILL)
    with pytest.raises(NoHelper, match="supervdsm has ended"):
        one.client.call("ping")
    assert one.client.gone


def test_whoever_waits_for_it_is_told_that_the_helper_has_gone(one: Helper) -> None:
    gone = threading.Event()
    client = Client(fd=one.client.fileno(), on_gone=gone.set)
    assert client.fileno() == one.client.fileno()
    one.end(signal.SIGKILL)
    with pytest.raises(NoHelper):
        client.call("ping")
    assert gone.is_set()
    client.close()
    with pytest.raises(NoHelper, match="is closed"):
        client.call("ping")


def test_a_helper_over_a_pair_ends_with_its_daemon(one: Helper) -> None:
    one.client.call("ping")
    one.hang_up()
    assert one.process.wait(PATIENCE) == 0


def test_only_callers_that_an_action_names_may_call_it(helper: Start) -> None:
    one = helper(module=SERVER, service=True)
    one.hold("hsmd")
    assert one.client.call("ping") == "pong"
    with pytest.raises(NotAllowed, match=r"test\.whose is not for hsmd"):
        one.client.call("test.whose")


def test_without_a_helper_a_call_says_so() -> None:
    with pytest.raises(NoHelper, match="needs root, and there is no supervdsm"):
        Without().call("bridge.create", name="x")


def _time_out(client: Client) -> str:
    with pytest.raises(TimedOut) as caught:
        client.call("test.echo", value="x" * 60_000, timeout=0.001)
    return str(caught.value)


def _audit(one: Helper) -> list[str]:
    return [line for line in one.log().splitlines() if " call caller=" in line]


def _sleepers(seconds: float) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            except OSError:
                continue
            if command in ([b"sleep", str(seconds).encode()], [b"sleep", str(float(seconds)).encode()]):
                found.append(int(entry.name))
    return found


def _end_sleepers(seconds: float) -> None:
    for pid in _sleepers(seconds):
        os.kill(pid, signal.SIGKILL)
