"""The helper replaced in place: under load, refused, and with what waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervdsm.client import Client
from tests.supervdsm.helper import PATIENCE, Helper
from tests.until import until

pytestmark = pytest.mark.slow

SERVER = "tests.supervdsm.server"
Start = Callable[..., Helper]
ROUNDS = 20
PATIENT = {"rehearsal_timeout": PATIENCE, "quiesce_timeout": PATIENCE}
"""For where a replacement must not be refused, however busy the machine is."""


def replace(one: Helper) -> None:
    before, refused = (one.log().count(said) for said in ("Replaced; going on", "Replacement refused"))
    one.send(signal.SIGHUP)

    def done() -> bool:
        if one.log().count("Replacement refused") > refused:
            pytest.fail("the replacement was refused; the log says why")
        return one.log().count("Replaced; going on") > before

    until(done, PATIENCE, "the helper to be replaced")


class Load:
    """Threads that call without a pause; each answer is looked at, and each error remembered."""

    def __init__(self, client: Client) -> None:
        self.errors: list[str] = []
        self.calls = 0
        self._client = client
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(6)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        action = "test.slow-echo" if number % 3 == 0 else "test.echo"
        while not self._end.is_set():
            try:
                value = f"{number}-{self.calls}"
                assert self._client.call(action, value=value) == value
                self.calls += 1
            except Exception as error:  # whatever it was, it is the test's result
                self.errors.append(repr(error))
                return


@pytest.mark.slow
@pytest.mark.parametrize("service", [False, True])
def test_under_load_no_call_is_lost(helper: Start, service: bool) -> None:
    one = helper(module=SERVER, service=service, options={"supervdsm": PATIENT})
    client = one.client
    pid, before = client.call("test.pid"), client.call("test.descriptors")
    with Load(client) as load:
        for _ in range(ROUNDS):
            replace(one)
    assert load.errors == []
    assert load.calls > 100
    assert client.call("test.pid") == pid
    assert client.call("test.descriptors") == before


def test_a_new_connection_is_made_after_it_as_before(helper: Start) -> None:
    one = helper(module=SERVER, service=True)
    replace(one)
    assert one.client.call("ping") == "pong"
    replace(one)
    fresh = Client(path=str(one.path))
    assert fresh.call("ping") == "pong"
    fresh.close()
    assert one.end() == 0


def test_a_slow_action_ends_first_and_those_that_wait_are_handed_on(helper: Start, tmp_path: Path) -> None:
    one = helper(module=SERVER, options={"supervdsm": {"quiesce_timeout": 100}})
    begun = tmp_path / "slow.begun"
    with ThreadPoolExecutor(5) as pool:
        slow = pool.submit(one.client.call, "test.slow", seconds=3602, path=str(tmp_path / "slow"))
        until(begun.exists, PATIENCE)
        one.send(signal.SIGHUP)
        until(lambda: "Replacement waits" in one.log(), PATIENCE)
        waiting = [pool.submit(one.client.call, "test.slow-echo", value=str(number)) for number in range(3)]
        assert one.client.call("ping") == "pong", "quick actions go on meanwhile"
        assert not any(call.done() for call in waiting)
        os.killpg(int(begun.read_text()), signal.SIGKILL)
        assert slow.exception(PATIENCE) is not None
        assert [call.result(PATIENCE) for call in waiting] == ["0", "1", "2"]
    until(lambda: "Replaced; going on connections=1 waiting=3" in one.log(), PATIENCE)


def test_it_is_refused_while_an_action_does_not_end(helper: Start, tmp_path: Path) -> None:
    one = helper(module=SERVER, options={"supervdsm": {"quiesce_timeout": 0.3}})
    begun = tmp_path / "slow.begun"
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(one.client.call, "test.slow", seconds=3603, path=str(tmp_path / "slow"))
        until(begun.exists, PATIENCE)
        one.send(signal.SIGHUP)
        until(lambda: "Replacement refused reason=still at work: test.slow" in one.log(), PATIENCE)
        assert one.client.call("test.slow-echo", value="x") == "x"
        os.killpg(int(begun.read_text()), signal.SIGKILL)
        assert slow.exception(PATIENCE) is not None
    replace(one)
    assert one.client.call("ping") == "pong"


def test_a_stop_while_it_waits_is_not_forgotten(helper: Start, tmp_path: Path) -> None:
    one = helper(module=SERVER, service=True, options={"supervdsm": {"quiesce_timeout": 100}})
    begun = tmp_path / "slow.begun"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(one.client.call, "test.slow", seconds=3608, path=str(tmp_path / "slow"))
        until(begun.exists, PATIENCE)
        one.send(signal.SIGHUP)
        until(lambda: "Replacement waits" in one.log(), PATIENCE)
        one.send(signal.SIGTERM)
        until(lambda: "supervdsm Stopping" in one.log(), PATIENCE)
        os.killpg(int(begun.read_text()), signal.SIGKILL)
        assert slow.exception(PATIENCE) is not None
    assert one.process.wait(PATIENCE) == 0
    assert "Replaced; going on" not in one.log()


def test_a_configuration_that_cannot_be_used_refuses_it(helper: Start) -> None:
    one = helper(module=SERVER, service=True)
    one.configure({"supervdsm": {"user": "no-such-user"}})
    one.send(signal.SIGHUP)
    until(lambda: "Replacement refused" in one.log(), PATIENCE)
    assert "user = no-such-user: there is no such user" in one.log()
    assert one.client.call("ping") == "pong"
    one.configure({})
    replace(one)
    assert one.client.call("ping") == "pong"


def test_a_hand_off_that_was_meant_for_another_process_is_not_taken(helper: Start) -> None:
    one = helper(module=SERVER, service=True, env={"SUPERVDSM_HANDOFF": "0"})
    assert one.client.call("ping") == "pong"


def test_the_log_goes_on_in_a_new_file(helper: Start) -> None:
    one = helper(module=SERVER, service=True)
    log = one.log_dir / "supervdsm.log"
    one.client.call("test.echo", value="first")
    until(lambda: "first" in log.read_text(), PATIENCE)
    log.rename(one.log_dir / "supervdsm.log.1")
    one.send(signal.SIGUSR1)
    until(log.exists, PATIENCE)
    one.client.call("test.echo", value="second")
    until(lambda: "second" in log.read_text(), PATIENCE)
    assert "first" not in log.read_text()
